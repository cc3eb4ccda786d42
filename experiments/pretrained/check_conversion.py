"""Checks converted folders with transformers, which can also read GGUF files by itself.

Writes the perplexity of the paragraph beside this file, and how far the logits are apart:
  python -m experiments.pretrained.check_conversion --models=gemma3_270m,smollm2_135m \
    --folders=FOLDER,FOLDER --ggufs=FILE,FILE \
    --output=experiments/pretrained/results/conversion.csv

Takes a Python with torch, transformers and gguf; pkpo_jax itself does without the first two. The
folders are what `python -m pkpo_jax.pretrained NAME` writes, each GGUF file what it was made of.
Made with Python 3.11, torch 2.13.0+cpu, transformers 5.24.0, gguf 0.19.0.
"""

import argparse
import math
import pathlib
import time

import torch
import transformers

from experiments.pretrained import rows

COMMAND = 'python -m experiments.pretrained.check_conversion'
PARAGRAPH = pathlib.Path(__file__).parent / 'paragraph.txt'


def logits_and_nats(model, ids):
  """Returns the logits [T, V] and the mean nats of each token after the first."""
  with torch.no_grad():
    logits = model(ids).logits[0].float()
  log_probs = torch.log_softmax(logits[:-1], dim=-1)
  return logits, -log_probs.gather(-1, ids[0, 1:, None]).mean().item()


def check(name, folder, gguf):
  tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
  text = PARAGRAPH.read_text(encoding='utf-8').replace('\n', ' ').strip()
  ids = tokenizer(text, add_special_tokens=False, return_tensors='pt').input_ids
  config = transformers.AutoConfig.from_pretrained(folder)
  if config.model_type.startswith('gemma'):  # SmolLM2 begins texts with no token of their own.
    ids = torch.cat([torch.tensor([[config.bos_token_id]]), ids], dim=1)
  load = transformers.AutoModelForCausalLM.from_pretrained
  logits, nats = logits_and_nats(load(folder, dtype=torch.float32).eval(), ids)
  of_gguf = load(gguf.parent, gguf_file=gguf.name, dtype=torch.float32).eval()
  expected, expected_nats = logits_and_nats(of_gguf, ids)
  return {
    'model': name,
    'num_tokens': ids.shape[1],
    'nats_per_token': f'{nats:.5f}',
    'perplexity': f'{math.exp(nats):.4f}',
    'perplexity_from_gguf': f'{math.exp(expected_nats):.4f}',
    'max_logit_difference': f'{(logits - expected).abs().max().item():.3g}',
    'max_abs_logit': f'{expected.abs().max().item():.4g}',
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  split = lambda text: text.split(',')
  parser.add_argument('--models', type=split, required=True)
  parser.add_argument('--folders', type=split, required=True)
  parser.add_argument('--ggufs', type=split, required=True)
  parser.add_argument('--output', type=pathlib.Path, required=True)
  args, start = parser.parse_args(), time.monotonic()
  ggufs = map(pathlib.Path, args.ggufs)
  found = [check(*each) for each in zip(args.models, args.folders, ggufs, strict=True)]
  rows.write(args.output, found, COMMAND, {'models': args.models}, None, time.monotonic() - start)


if __name__ == '__main__':
  main()

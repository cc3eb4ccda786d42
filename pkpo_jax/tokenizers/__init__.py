"""Tokenizers: text to token ids and back."""

from pkpo_jax.tokenizers.base import Tokenizer, check_vocabulary
from pkpo_jax.tokenizers.characters import CharacterTokenizer
from pkpo_jax.tokenizers.huggingface import HuggingFaceTokenizer
from pkpo_jax.tokenizers.sentencepiece import SentencePieceTokenizer

__all__ = [
  'TOKENIZERS',
  'CharacterTokenizer',
  'HuggingFaceTokenizer',
  'SentencePieceTokenizer',
  'Tokenizer',
  'check_vocabulary',
]

TOKENIZERS = {
  'characters': CharacterTokenizer,
  'huggingface': HuggingFaceTokenizer,
  'sentencepiece': SentencePieceTokenizer,
}

"""The parts of Qwen's tokenizer that a converter reads: ranks and special tokens."""

import base64
from pathlib import Path
from typing import ClassVar

from transformers import PreTrainedTokenizer

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205)))


class QWenTokenizer(PreTrainedTokenizer):
    vocab_files_names: ClassVar = {"vocab_file": "qwen.tiktoken"}

    def __init__(self, vocab_file, **kwargs):
        lines = Path(vocab_file).read_bytes().splitlines()
        self.mergeable_ranks = {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, lines)}
        self.special_tokens = {text: len(lines) + index for index, text in enumerate(SPECIAL)}
        super().__init__(**kwargs)

    @property
    def vocab_size(self):
        return len(self.mergeable_ranks) + len(self.special_tokens)

    def get_vocab(self):
        return {**self.mergeable_ranks, **self.special_tokens}

    def _convert_token_to_id(self, token):
        return self.get_vocab().get(token)

    def _convert_id_to_token(self, index):
        return {id: token for token, id in self.get_vocab().items()}[index]

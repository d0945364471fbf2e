"""Copies the chat templates that llama.cpp's converter writes, from a llama.cpp tree.

python tools/refresh_chat_templates.py LLAMA_CPP_TREE
"""

from __future__ import annotations

import shutil

from reference_tree import ROOT, reference_tree

TEMPLATES = {
    "deepseek-v4": "deepseek-ai-DeepSeek-V4",
    "deepseek-v4-flash-0731": "deepseek-ai-DeepSeek-V4-Flash-0731",
    "kimi-k3": "Kimi-K3",
    "minimax-m1": "MiniMax-M1",
    "mistral-v11": "Mistral-Small-3.2-24B-Instruct-2506",
    "mistral-v13": "unsloth-mistral-Devstral-Small-2507",
    "rwkv-world": "llama-cpp-rwkv-world",
}

if __name__ == "__main__":
    tree = reference_tree(__doc__)
    for ours, theirs in TEMPLATES.items():
        shutil.copyfile(
            tree / f"models/templates/{theirs}.jinja", ROOT / f"gguf_forge/tokenizer/chat_templates/{ours}.jinja"
        )

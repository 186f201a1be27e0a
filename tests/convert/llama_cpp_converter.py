"""Runs llama.cpp's own converter on a tiny checkpoint: a script for the opt-in oracle tests.

llama.cpp names a pre-tokenizer by a hash over token ids, which no tiny vocabulary can have, so
its name is given here. It reads config.json through transformers, which renames keys of some
families that the converter then misses; "raw" makes it read the file itself, as it does where
transformers does not know a model. Usage:
llama_cpp_converter.py SOURCE_TREE PRE raw|transformers [the converter's arguments]
"""

import json
import runpy
import sys
from pathlib import Path


def main() -> None:
    tree, pre = Path(sys.argv[1]), sys.argv[2]
    sys.path.insert(0, str(tree))
    sys.path.insert(0, str(tree / "gguf-py"))
    from conversion import base, deepseek  # type: ignore[import-not-found]

    base.TextModel.get_vocab_base_pre = lambda self, tokenizer: pre
    # This one insists on a tokenizer that adds a beginning-of-text token.
    deepseek.DeepseekV32Model.set_vocab = base.TextModel.set_vocab
    if sys.argv[3] == "raw":
        base.ModelBase.load_hparams = staticmethod(
            lambda folder, is_mistral_format: json.loads((folder / "config.json").read_text())
        )
    script = tree / "convert_hf_to_gguf.py"
    sys.argv = [str(script), *sys.argv[4:]]
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main()

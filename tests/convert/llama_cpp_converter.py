"""Runs llama.cpp's own converter on a tiny checkpoint: a script for the opt-in oracle tests.

llama.cpp names a pre-tokenizer by a hash over token ids, which no tiny vocabulary can have, so
its name is given here. It reads config.json through transformers, which renames keys of some
families that the converter then misses; "raw" makes it read the file itself, as it does where
transformers does not know a model. Several outtypes can be had in one run: `{}` in OUT stands for
them. A drafter's target is named by MTP_TARGET.
Usage: llama_cpp_converter.py SOURCE_TREE PRE raw|transformers CHECKPOINT OUT OUTTYPE...
"""

import json
import os
import runpy
import sys


def main() -> None:
    tree, pre, how, folder, out, *outtypes = sys.argv[1:]
    sys.path.insert(0, tree)
    sys.path.insert(0, f"{tree}/gguf-py")
    from conversion import base, deepseek  # type: ignore[import-not-found]

    base.TextModel.get_vocab_base_pre = lambda self, tokenizer: pre
    # This one insists on a tokenizer that adds a beginning-of-text token.
    deepseek.DeepseekV32Model.set_vocab = base.TextModel.set_vocab
    if how == "raw":
        base.ModelBase.load_hparams = staticmethod(
            lambda folder, is_mistral_format: json.loads((folder / "config.json").read_text())
        )
    script = f"{tree}/convert_hf_to_gguf.py"
    for outtype in outtypes:
        file = out.replace("{}", outtype)
        sys.argv = [script, folder, "--outfile", file, "--outtype", outtype]
        if os.environ.get("MTP_TARGET"):
            sys.argv += ["--target-model-dir", os.environ["MTP_TARGET"]]
        runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()

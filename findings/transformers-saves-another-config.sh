#!/usr/bin/env bash
# Seen 2026-11-28 with transformers 5.24.0.
#
# One would guess: loading a published config.json and saving it again loses nothing but defaults.
#   Where a key is renamed (`rope_theta` moved into `rope_parameters` in release 5), the value
#   stays.
# True: the saved file is one for transformers, which reads it back and saves it alike, and not
#   for anybody else.
#   - Nemotron-H: `num_hidden_layers` is gone (in Python it still answers: it is computed), and so
#     is the pattern string. The number of layers is the length of a list of other words.
#   - Its time limit, infinite by default, is an *object*, {"__float__": "Infinity"}, inside a
#     list of numbers.
#   - MiMo-V2-Flash: the window is 129 instead of 128. The published number counts the tokens
#     before the current one, the class's includes it; `sliding_window_size` is still there and
#     still 128.
# Why it matters: most fine-tunes are such saved folders. A converter that reads the JSON meets a
#   missing key in one folder of a model and another window in the next, by who wrote it and not
#   by the model; and one that asks transformers gets the changed values from the published folder
#   too.
set -eu

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install -qq transformers==5.24.0
cd "$scratch"
TRANSFORMERS_VERBOSITY=critical "$scratch/venv/bin/python" - <<'PYTHON'
import json
from pathlib import Path

import transformers

# The keys that matter here, as the models' authors publish them, with fewer layers.
NEMOTRON_H = {
    "model_type": "nemotron_h",
    "num_hidden_layers": 4,
    "hybrid_override_pattern": "M-M*",
}
MIMO = {
    "model_type": "mimo_v2_flash",
    "num_hidden_layers": 4,
    "hybrid_layer_pattern": [0, 1, 1, 0],
    "sliding_window": 128,
    "sliding_window_size": 128,
}


def saved(published):
    """(the loaded config, the JSON that it saves)"""
    folder = Path(published["model_type"])
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(published))
    config = transformers.AutoConfig.from_pretrained(folder)
    config.save_pretrained(folder / "saved")
    written = (folder / "saved" / "config.json").read_text()
    transformers.AutoConfig.from_pretrained(folder / "saved").save_pretrained(folder / "again")
    assert (folder / "again" / "config.json").read_text() == written, "the saved file changes again"
    return config, json.loads(written)


print("transformers", transformers.__version__)
print("expected: 4 layers, a limit of two numbers and a window of 128, before and after saving")
nemotron, nemotron_json = saved(NEMOTRON_H)
mimo, mimo_json = saved(MIMO)
print("seen:")
print("  Nemotron-H, num_hidden_layers in Python:", nemotron.num_hidden_layers)
print("  Nemotron-H, num_hidden_layers saved:", nemotron_json.get("num_hidden_layers"))
print("  Nemotron-H, layers_block_type saved:", nemotron_json["layers_block_type"])
print("  Nemotron-H, time_step_limit saved:", nemotron_json["time_step_limit"])
windows = {key: mimo_json[key] for key in ("sliding_window", "sliding_window_size")}
print("  MiMo-V2-Flash, windows saved:", windows)

assert nemotron.num_hidden_layers == 4
assert "num_hidden_layers" not in nemotron_json
assert "hybrid_override_pattern" not in nemotron_json
assert len(nemotron_json["layers_block_type"]) == 4
assert nemotron_json["time_step_limit"] == [0.0, {"__float__": "Infinity"}]
assert mimo.sliding_window == 129
assert windows == {"sliding_window": 129, "sliding_window_size": 128}
PYTHON

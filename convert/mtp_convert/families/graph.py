"""What a config asks of a graph that llama.cpp computes in one way only: activations and windows.

No GGUF key says which activation a network has, so that another than the graph's gives a model that
only seems to run. Owns the names that configs give them. Knows nothing of any one family.
"""

from __future__ import annotations

from mtp_cli.errors import MtpError
from mtp_convert.families.rules import Config

SQUARED_RELU = frozenset({"relu2"})
GELU = frozenset({"gelu_pytorch_tanh", "gelu_new", "gelu_fast"})  # by tanh, as ggml has it
_ACTIVATION = ("mlp_hidden_act", "hidden_activation", "hidden_act")


def check_activation(config: Config, computed: frozenset[str]) -> None:
    """MtpError for an activation of the feed-forward networks that the graph does not compute."""
    key = next((key for key in _ACTIVATION if config.find(key) is not None), "")
    if key and config.find(key) not in computed:
        raise MtpError(
            f"{config.where}: {key}: {str(config.find(key))[:40]}: llama.cpp computes "
            f"{' or '.join(sorted(computed))} for this family"
        )


def unseen_window(config: Config) -> int | None:
    """Tokens that sliding attention sees, for a graph without it; None where it sees all of them.

    A context of as many is computed as the model was trained.
    """
    window, n_layers = config.whole("sliding_window"), config.count("num_hidden_layers")
    is_off = config.flag("use_sliding_window") is False
    if not window or is_off or window >= config.count("max_position_embeddings", default=window):
        return None
    kinds = config.find("layer_types")
    if isinstance(kinds, list):
        return window if "sliding_attention" in kinds else None
    has_one = config.count("max_window_layers", default=0) < n_layers  # the first layers see all
    return window if has_one else None

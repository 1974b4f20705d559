"""The transformers plug-in: importing this module, and nothing else, registers the quantizer
`featherweight`.

    import featherweight.interchange.hf
    model = AutoModelForCausalLM.from_pretrained("out/")

transformers builds the model on the meta device, this module replaces its layers by compressed
ones, transformers loads the tensors by name, and this module raises BadInput when the model is not
complete. Before loading it checks the description and, when the weights are local files, their
checksums and the presence, shape and dtype of every stored tensor. After loading it checks that
every tensor was filled and every scale is finite. Problems that transformers itself finds (other
sizes, files that it cannot parse) raise errors of transformers. Without the import, transformers
warns that the method is unknown, finds empty tensors in place of matrices, and raises a size
mismatch.

Only hooks that exist unchanged from transformers 5.15 on are overridden.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AUTO_QUANTIZER_MAPPING
from transformers.utils.quantization_config import QuantizationConfigMixin

from ..models.config import PACKED
from ..models.tensors import TensorFolder
from .packed import description as descriptions
from .packed.verify import check_against, check_filled, check_stored, check_sums


class FeatherweightConfig(QuantizationConfigMixin):
    """The `quantization_config` of a packed model; `description.py` says what it holds."""

    def __init__(self, **entries: Any) -> None:
        self.quant_method: Any = PACKED
        self.description = descriptions.read({**entries, "quant_method": PACKED})

    def to_dict(self) -> dict[str, Any]:
        """The entry for a config.json that transformers saves. It has no checksums (`files`),
        because transformers writes other weights files.
        """
        entry = self.description.to_dict()
        entry.pop("files", None)
        return entry

    @classmethod
    def from_dict(
        cls, config_dict: dict[str, Any], return_unused_kwargs: bool = False, **kwargs: Any
    ) -> FeatherweightConfig | tuple[FeatherweightConfig, dict[str, Any]]:
        """The config from the entry in config.json; transformers asks for the other arguments."""
        config = cls(**config_dict)
        return (config, kwargs) if return_unused_kwargs else config


class FeatherweightQuantizer(HfQuantizer):
    """Puts compressed modules into a model that transformers is about to load."""

    requires_calibration = True
    quantization_config: FeatherweightConfig

    def _process_model_before_weight_loading(
        self, model: Any, checkpoint_files: Any = None, **kwargs: Any
    ) -> None:
        description = self.quantization_config.description
        descriptions.install(model, description)
        files = [
            Path(file) for file in checkpoint_files or [] if str(file).endswith(".safetensors")
        ]
        if files:
            tensors = TensorFolder(files[0] if len(files) == 1 else files[0].parent)
            check_sums(files, description)
            check_stored(tensors, description)
            check_against(tensors, model)

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        check_filled(model, self.quantization_config.description)
        return model

    def is_serializable(self, *args: Any, **kwargs: Any) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return False


def register() -> None:
    """Make transformers know `quant_method: featherweight`; does nothing the second time."""
    if PACKED not in AUTO_QUANTIZATION_CONFIG_MAPPING:
        register_quantization_config(PACKED)(FeatherweightConfig)
    if PACKED not in AUTO_QUANTIZER_MAPPING:
        register_quantizer(PACKED)(FeatherweightQuantizer)


register()

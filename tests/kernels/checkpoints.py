"""Checkpoints with random weights in the formats of a model hub: they test loading, not the vectors' meaning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WORDS = [
    "the",
    "cat",
    "dog",
    "sat",
    "on",
    "mat",
    "a",
    "ship",
    "at",
    "sea",
    "espresso",
    "is",
    "coffee",
    "un",
    "##s",
    "##ing",
    "flower",
    "temple",
]
WAV2VEC2: dict[str, Any] = {
    "extractor_mode": "group_norm", "extractor_conv_layer_config": [[16, 10, 5], [16, 8, 4], [16, 4, 4]], "extractor_conv_bias": False,
    "encoder_embed_dim": 24, "encoder_projection_dropout": 0.0, "encoder_pos_conv_kernel": 16, "encoder_pos_conv_groups": 4,
    "encoder_num_layers": 2, "encoder_num_heads": 2, "encoder_attention_dropout": 0.0, "encoder_ff_interm_features": 48,
    "encoder_ff_interm_dropout": 0.0, "encoder_dropout": 0.0, "encoder_layer_norm_first": False, "encoder_layer_drop": 0.0, "aux_num_out": None,
}  # fmt: skip
OPEN_CLIP: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}


def sentence_transformer(folder: Path, size: int = 24, seed: int = 0) -> Path:
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(seed)
    raw = folder.parent / f"{folder.name}-raw"
    raw.mkdir(parents=True)
    (raw / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    BertTokenizerFast(vocab_file=str(raw / "vocab.txt")).save_pretrained(raw)
    shape = BertConfig(
        vocab_size=5 + len(WORDS),
        hidden_size=size,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(shape).save_pretrained(raw)
    words = Transformer(str(raw), max_seq_length=32)
    SentenceTransformer(modules=[words, Pooling(size)], prompts={"query": "a ", "document": ""}).save(
        str(folder)
    )
    return folder


def open_clip_model(folder: Path, seed: int = 0, **preprocess: Any) -> Path:
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    config = {**OPEN_CLIP, "preprocess_cfg": {**OPEN_CLIP["preprocess_cfg"], **preprocess}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    return folder


def siglip2_model(folder: Path, seed: int = 0) -> Path:
    """A model of the structure that open_clip has for SigLIP2, with small networks and a tokenizer of a few words."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    config = open_clip.get_model_config("ViT-B-16-SigLIP2")
    vision = {**config["vision_cfg"], "timm_model_name": "test_vit", "image_size": 160}
    text = {**config["text_cfg"], "width": 64, "heads": 2, "layers": 1, "vocab_size": 5 + len(WORDS)}
    text["hf_tokenizer_name"] = str(folder)
    squash = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    whole = {**config, "embed_dim": 64, "vision_cfg": vision, "text_cfg": text}
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": whole, "preprocess_cfg": {**squash, "size": [3, 160, 160]}})
    )
    word_tokenizer().save_pretrained(folder)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    return folder


def word_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *WORDS]
    words = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    )


def clap_model(folder: Path, seed: int = 0, **audio: Any) -> Path:
    import torch
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    torch.manual_seed(seed)
    shape = ClapConfig(
        text_config={
            "vocab_size": 5 + len(WORDS), "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 32, "max_position_embeddings": 40, "projection_dim": 32,
        },
        audio_config={
            "patch_embeds_hidden_size": 16, "hidden_size": 128, "depths": [1, 1, 1, 1], "projection_dim": 32,
            "num_attention_heads": [1, 1, 2, 2], **audio,
        },
        projection_dim=32,
    )  # fmt: skip
    ClapModel(shape).save_pretrained(folder)
    ClapFeatureExtractor(truncation="fusion" if audio.get("enable_fusion") else "rand_trunc").save_pretrained(
        folder
    )
    word_tokenizer().save_pretrained(folder)
    return folder


def wav2vec2(folder: Path, seed: int = 0, pickled: bool = False) -> Path:
    import torch
    from safetensors.torch import save_file
    from torchaudio.models import wav2vec2_model

    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(
        json.dumps({"sample_rate": 8_000, "normalize": True, "params": WAV2VEC2})
    )
    tensors = {name: value.contiguous() for name, value in wav2vec2_model(**WAV2VEC2).state_dict().items()}
    if pickled:
        torch.save(tensors, folder / "model.pt")
    else:
        save_file(tensors, folder / "model.safetensors")
    return folder

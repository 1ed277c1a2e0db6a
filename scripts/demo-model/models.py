"""The five networks of Kandinsky 2.2 at the widths of the demo model.

Rows of all matrices are multiples of 32, the block size of q8_0 and q4_0, wherever the architecture allows.
"""

from __future__ import annotations

from diffusers import PriorTransformer, UNet2DConditionModel, VQModel
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPVisionConfig, CLIPVisionModelWithProjection

IMAGE_SIZE = 128  # pixels; the pictures that the decoder makes
CLIP_IMAGE_SIZE = 64  # pixels; what the image encoder sees
EMBEDDING_DIM = 96


def build_movq() -> VQModel:
    """Factor 8, 4 latent channels. Its spatial norms have 32 groups, so widths must be multiples of 32."""
    return VQModel(
        in_channels=3, out_channels=3, latent_channels=4, vq_embed_dim=4,
        down_block_types=("DownEncoderBlock2D",) * 3 + ("AttnDownEncoderBlock2D",),
        up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 32, 64, 128), layers_per_block=1, norm_num_groups=32, norm_type="spatial",
        num_vq_embeddings=16,  # never looked up: the pipelines decode with force_not_quantize
        sample_size=IMAGE_SIZE,
    )


def build_unet(in_channels: int = 4) -> UNet2DConditionModel:
    """4 input channels, or 9 for inpainting. Has 8 output channels as the published model; the 4 of the variance are not trained (the scheduler is DDIM)."""
    return UNet2DConditionModel(
        sample_size=IMAGE_SIZE // 8, in_channels=in_channels, out_channels=8,
        addition_embed_type="image", encoder_hid_dim_type="image_proj", encoder_hid_dim=EMBEDDING_DIM,
        cross_attention_dim=64, attention_head_dim=32, resnet_time_scale_shift="scale_shift",
        down_block_types=("ResnetDownsampleBlock2D", *["SimpleCrossAttnDownBlock2D"] * 3),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=(*["SimpleCrossAttnUpBlock2D"] * 3, "ResnetUpsampleBlock2D"),
        block_out_channels=(64, 96, 128, 128), layers_per_block=1,
    )


def build_text_encoder(vocabulary_size: int) -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(CLIPTextConfig(
        vocab_size=vocabulary_size, hidden_size=96, intermediate_size=384, projection_dim=EMBEDDING_DIM,
        num_hidden_layers=2, num_attention_heads=3, max_position_embeddings=77, hidden_act="gelu",
        bos_token_id=vocabulary_size - 2, eos_token_id=vocabulary_size - 1, pad_token_id=vocabulary_size - 1))


def build_image_encoder() -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection(CLIPVisionConfig(
        hidden_size=96, intermediate_size=384, projection_dim=EMBEDDING_DIM, num_hidden_layers=2,
        num_attention_heads=3, image_size=CLIP_IMAGE_SIZE, patch_size=16, hidden_act="gelu"))


def build_prior(text_tokens: int = 77) -> PriorTransformer:
    return PriorTransformer(num_attention_heads=4, attention_head_dim=32, num_layers=4, embedding_dim=EMBEDDING_DIM,
                            num_embeddings=text_tokens, additional_embeddings=4)

// What each network takes and gives: the methods of native/models/, one file each, under the reference's names.
// Adding a network to native/models/registry.cpp adds its entry here; everything else follows from it.
import type { Tensor } from '../tensor.js'

/** Token ids and masks. */
export interface Integers {
  data: Int32Array
  shape: readonly number[]
}

/** Shapes use B for rows of the batch. */
export interface NetworkCalls {
  CLIPTextModelWithProjection: {
    /** ids [B, 77] to the projected embedding [B, projection] and all hidden states [B, 77, hidden] */
    forward(inputs: { input_ids: Integers }): { text_embeds: Tensor; last_hidden_state: Tensor }
  }
  CLIPTextModel: {
    /** ids [B, 77] to the state of the pooled token [B, hidden] and all hidden states [B, 77, hidden] */
    forward(inputs: { input_ids: Integers }): { pooler_output: Tensor; last_hidden_state: Tensor }
  }
  CLIPVisionModelWithProjection: {
    /** preprocessed pixels [B, 3, size, size] to [B, projection] */
    forward(inputs: { pixel_values: Tensor }): { image_embeds: Tensor }
  }
  MultilingualCLIP: {
    /** ids and mask [B, 77] to the projected embedding [B, projection] and all hidden states [B, 77, hidden] */
    forward(inputs: { input_ids: Integers; attention_mask: Integers }): {
      text_embeds: Tensor
      last_hidden_state: Tensor
    }
  }
  PriorTransformer: {
    /** embeddings [B, D] at a timestep [1] to the predicted ones [B, D]; the mask is 1 for real tokens */
    forward(inputs: {
      hidden_states: Tensor
      timestep: Tensor
      proj_embedding: Tensor
      encoder_hidden_states: Tensor
      attention_mask: Integers
    }): { predicted_image_embedding: Tensor }
    /** embeddings as the prior works on them [B, D] to CLIP's */
    post_process(inputs: { latents: Tensor }): { image_embeds: Tensor }
  }
  UNet2DConditionModel: {
    /** latents [B, C, h, w] at a timestep [1] to noise, or noise and variance, of the same size */
    forward(inputs: { sample: Tensor; timestep: Tensor } & UNetConditioning): { sample: Tensor }
  }
  T5EncoderModel: {
    /** ids and mask [B, L] to the last hidden states [B, L, hidden] */
    forward(inputs: { input_ids: Integers; attention_mask?: Integers }): { last_hidden_state: Tensor }
  }
  Kandinsky3UNet: {
    /**
     * latents [B, C, h, w] at a timestep [1], with states [B, L, hidden], or what `project` made of them, and mask [B, L] of
     * a text, to noise
     */
    forward(
      inputs: { sample: Tensor; timestep: Tensor; encoder_attention_mask: Integers } & (
        | { encoder_hidden_states: Tensor }
        | { context: Tensor }
      ),
    ): { sample: Tensor }
    /** states [B, L, hidden] to what the attentions see of them; `null_embedding` [C] where the checkpoint has one */
    project(inputs: { encoder_hidden_states: Tensor }): { context: Tensor; null_embedding?: Tensor }
  }
  Kandinsky5Transformer3DModel: {
    /**
     * latents [1, 1, h, w, C] at a timestep [1], with states [1, L, hidden] and the pooled state [1, D] of a text, to
     * velocities [1, h * w, C], pixel by pixel
     */
    forward(inputs: {
      hidden_states: Tensor
      timestep: Tensor
      encoder_hidden_states: Tensor
      pooled_projections: Tensor
    }): { velocity: Tensor }
  }
  Qwen2_5_VLForConditionalGeneration: {
    /**
     * ids [B, L] to the last hidden states [B, L, hidden]; of one text with a picture, whose tokens its features [1, n,
     * hidden] replace; the mask [1, L] is 0 for padding
     */
    forward(
      inputs:
        | { input_ids: Integers }
        | { input_ids: Integers; image_features: Tensor; image_grid_thw: Integers; attention_mask: Integers },
    ): { last_hidden_state: Tensor }
    /** patches [n, values] of a grid [1, 3] of frames, rows and columns to features [1, n / 4, hidden] */
    get_image_features(inputs: { pixel_values: Tensor; image_grid_thw: Integers }): { image_features: Tensor }
  }
  AutoencoderKL: {
    /** pictures [B, 3, height, width] in [-1, 1] to means and logarithms of variances [B, 2 C, h, w] */
    encode(inputs: { sample: Tensor }): { moments: Tensor }
    decode(inputs: { latents: Tensor }): { sample: Tensor }
  }
  VQModel: {
    /** pictures [B, 3, height, width] in [-1, 1] to latents [B, 4, h, w] */
    encode(inputs: { sample: Tensor }): { latents: Tensor }
    decode(inputs: { latents: Tensor }): { sample: Tensor }
  }
  DPTForDepthEstimation: {
    /** preprocessed pixels [B, 3, height, width] to depth [B, height, width], larger is nearer */
    forward(inputs: { pixel_values: Tensor }): { predicted_depth: Tensor }
  }
}

/** What guides a UNet beside the latents; its config tells which of these it takes. */
export interface UNetConditioning {
  /** [B, D] */
  image_embeds?: Tensor
  /** 2.1: pooled text [B, D], and its tokens [B, 77, hidden] */
  text_embeds?: Tensor
  encoder_hidden_states?: Tensor
  /** ControlNet: [B, 3, height, width] in 0..1 */
  hint?: Tensor
}

export type NetworkClass = keyof NetworkCalls
export type Method<Class extends NetworkClass> = keyof NetworkCalls[Class] & string
type Call<Class extends NetworkClass, Name extends Method<Class>> = NetworkCalls[Class][Name] extends (
  inputs: infer Inputs,
) => infer Outputs
  ? { inputs: Inputs; outputs: Outputs }
  : never
export type Inputs<Class extends NetworkClass, Name extends Method<Class>> = Call<Class, Name>['inputs']
export type Outputs<Class extends NetworkClass, Name extends Method<Class>> = Call<Class, Name>['outputs']

// The public names of Kandinsky 3.
export { type Kandinsky3Options, Kandinsky3Pipeline } from './kandinsky3.js'
export { type Kandinsky3Img2ImgOptions, Kandinsky3Img2ImgPipeline } from './kandinsky3-img2img.js'
export { type Kandinsky3InpaintOptions, Kandinsky3InpaintPipeline } from './kandinsky3-inpaint.js'
export type { Kandinsky3Components } from './pipeline.js'
export type { EncodedPrompts, PromptOptions as Kandinsky3PromptOptions } from './prompts.js'

// The public names of Kandinsky 5.
export { type Kandinsky5I2IOptions, Kandinsky5I2IPipeline } from './kandinsky5-i2i.js'
export { type Kandinsky5T2IOptions, Kandinsky5T2IPipeline } from './kandinsky5-t2i.js'
export type { Kandinsky5Components } from './pipeline.js'
export type { EncodedPrompts as Kandinsky5EncodedPrompts, PromptOptions as Kandinsky5PromptOptions } from './prompts.js'

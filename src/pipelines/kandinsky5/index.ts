// The public names of Kandinsky 5.
export { type Kandinsky5Components, type Kandinsky5T2IOptions, Kandinsky5T2IPipeline } from './kandinsky5-t2i.js'
export type { PromptOptions as Kandinsky5PromptOptions } from './prompts.js'

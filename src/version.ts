/** The package's version, as in package.json, which is not read at run time: a bundle has none. */
export const version = '0.1.0'

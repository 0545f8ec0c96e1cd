// Files that the bundler puts into the executable as they are: the import is their path, inside it or in node_modules.
// Not the kernel library, which src/native/embedded.d.ts is about. Read next: png.ts.

declare module "*.wasm" {
  const path: string;
  export default path;
}

declare module "*.woff2" {
  const path: string;
  export default path;
}

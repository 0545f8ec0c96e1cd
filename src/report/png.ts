// An SVG picture as a PNG, drawn by resvg (WebAssembly) with a font that is inside the program: the same on every machine.
// Loaded only when a PNG is asked for: compiling the renderer takes some 40 ms. Not for text; that is textplot.ts.
import { initWasm, Resvg } from "@resvg/resvg-wasm";
import rendererFile from "@resvg/resvg-wasm/index_bg.wasm" with { type: "file" };
import fontFile from "@fontsource/dejavu-sans/files/dejavu-sans-latin-400-normal.woff2" with { type: "file" };

const font = "DejaVu Sans";
let ready: Promise<void> | undefined;

/** The bytes of a PNG, `scale` pixels for each unit of the picture. Throws what resvg throws for text that is no SVG. */
export async function renderPng(svg: string, scale: number): Promise<Uint8Array> {
  ready ??= Bun.file(rendererFile).bytes().then((bytes) => initWasm(bytes));
  await ready;
  const resvg = new Resvg(svg, {
    fitTo: { mode: "zoom", value: scale },
    font: { fontBuffers: [await Bun.file(fontFile).bytes()], loadSystemFonts: false, defaultFontFamily: font, sansSerifFamily: font },
  });
  try {
    const image = resvg.render();
    try {
      return image.asPng();
    } finally {
      image.free();
    }
  } finally {
    resvg.free();
  }
}

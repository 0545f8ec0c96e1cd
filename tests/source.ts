// Bytes in memory as the readers of files take them. For tests only.
// Read next: src/run/reading.ts.
import type { Source } from "../src/run/reading.ts";

export function sourceOf(bytes: Uint8Array): Source {
  return { size: bytes.length, fill: (target, position) => target.set(bytes.subarray(position, position + target.length)) };
}

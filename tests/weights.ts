// A model's weights for tests, copied out by name.
// Not a test. Used by abi.test.ts, golden.test.ts and samebits.test.ts.
import { savedWeights } from "../src/models/egg.ts";
import { bytesNow, piecesOf } from "../src/models/tensors.ts";
import type { NativeModel } from "../src/native/int8.ts";

export function weightsOf(model: NativeModel): Map<string, { data: Uint8Array }> {
  return new Map([...savedWeights(model)].map(([name, tensor]) => [name, { data: Buffer.concat(piecesOf(tensor).map(bytesNow)) }]));
}

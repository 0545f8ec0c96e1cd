// Whether a text is XML that a reader can take, for the tests of pictures. Not a parser: entities and tags only.
// Read next: bench.test.ts and ladder.test.ts, which use it.
import { expect } from "bun:test";

/** Tags that match, attributes in quotes, nothing else: enough of XML to know that a reader will not choke. */
export function expectWellFormed(xml: string): void {
  const open: string[] = [];
  const tags = /<(\/?)([a-z]+)((?: [\w:-]+="[^"<]*")*)(\/?)>|&(?:amp|lt|gt|quot);|[^<&]+/gy;
  let at = 0;
  for (const match of xml.matchAll(tags)) {
    expect(match.index).toBe(at);
    at += match[0].length;
    if (match[2] === undefined || match[4] === "/") continue;
    if (match[1] === "/") expect(open.pop()).toBe(match[2]);
    else open.push(match[2]);
  }
  expect([at, open]).toEqual([xml.length, []]);
}

// Near names for misspelt words: the "did you mean" of config keys, presets, options and commands.
// Not a fuzzy search: a suggestion that is not near is worse than none.
// Read next: load.ts, and src/commands/arguments.ts.

/**
 * The candidate nearest to a word, upper and lower case taken as equal; undefined where none is near.
 * Near is one edit (insert, delete, replace, swap of neighbours) for words of up to 7 letters, two up to 11, three beyond.
 * Among equally near ones the one with the longest common start wins, then the earlier.
 */
export function nearest(word: string, candidates: Iterable<string>): string | undefined {
  const limit = Math.max(1, Math.min(3, Math.floor(word.length / 4)));
  const lower = word.toLowerCase();
  let best: { name: string; edits: number; start: number } | undefined;
  for (const name of candidates) {
    if (Math.abs(name.length - word.length) > limit) continue;
    const edits = distance(lower, name.toLowerCase(), limit);
    if (edits > limit) continue;
    const start = commonStart(word, name);
    if (best === undefined || edits < best.edits || (edits === best.edits && start > best.start)) best = { name, edits, start };
  }
  return best?.name;
}

function commonStart(a: string, b: string): number {
  let length = 0;
  while (length < a.length && a[length] === b[length]) length++;
  return length;
}

/** Damerau-Levenshtein distance (optimal string alignment) in UTF-16 units; some number above `limit` where it is above. */
function distance(a: string, b: string, limit: number): number {
  let before: number[] = [];
  let above = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    let least = i;
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      let edits = Math.min(above[j]! + 1, row[j - 1]! + 1, above[j - 1]! + (same ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) edits = Math.min(edits, before[j - 2]! + 1);
      row.push(edits);
      if (edits < least) least = edits;
    }
    // From here it can only grow: a swap looks back two rows, and adds one to what the row before last had.
    if (least > limit && Math.min(...above) >= limit) return limit + 1;
    before = above;
    above = row;
  }
  return above[b.length]!;
}

// The words and sentences of the built-in fables: tables only.
// Change one letter here and every text changes: raise fablesVersion in fables.ts and repin its test.
// How to read them: `lists` are words from frequent to rare (`/he`, `/she`: the word's pronoun); `rules` are alternative
// sentences. `<rule>` writes a rule, `<list.form>` draws a word (forms: .a a fox, .A A fox, .cap Fox, .he .him .his),
// `<v=list>` draws one and remembers it as v, `<v>` repeats it, `{this|that}` chooses, `3* ` in front is a weight.
//
// Alternatives must part before the shorter one ends, counting what follows it: tests/fables.test.ts walks them all and
// names two that do not. Short words and few fillers keep the entropy per byte up.

/** Words of a list, from frequent to rare: the weight of the word at `rank` is 1 / (rank + slope). */
export interface WordTable {
  slope: number;
  words: string;
}

const vowels = ["a", "e", "i", "o", "u"];
// No k, p, f, z, j and no "ho": from these, no verse says anything rude.
const syllables = "l t r m d n b h s w y".split(" ").flatMap((c) => vowels.map((v) => c + v)).filter((la) => la !== "ho");
const countables = Array.from({ length: 98 }, (_, i) => String(i + 2));

export const lists: Record<string, WordTable> = {
  heroes: { slope: 31, words: `
    fox, mouse, hare, hen, mole, toad, otter, frog, wren, ant, vole, robin, newt, rabbit, bee, kitten, lamb, finch, puppy, snail, weasel, shrew,
    piglet, lark, beetle, moth, stoat, fawn, kid, lizard, bat, thrush, ferret, chick, magpie, foal, spider, mink, quail, rat, dove, plover,
    pigeon, wasp, gnat, cub, calf, midge, tern, jay, duck, slug, crab, moose, gull, skunk, hamster, squirrel, hedgehog, cricket, sparrow,
    duckling ` },
  foes: { slope: 32, words: `
    wolf/he, bear/he, owl/she, crow/he, goose/she, cow/she, ox/he, ram/he, ewe/she, donkey/he, cat/she, dog/he, raven/he, stag/he, heron/he, goat/she,
    mare/she, badger/he, boar/he, sow/she, swan/she, hawk/he, doe/she, stork/he, lion/he, turtle/she, beaver/he, eagle/she, crane/she, hound/he,
    bull/he, mule/he, pike/he, snake/she, lynx/she, gander/he, drake/he, falcon/she, turkey/he, cuckoo/she, rook/he, elk/he, carp/she, eel/he,
    viper/she, camel/he, ape/he, tiger/he, monkey/she, vixen/she, trout/she, marten/he, pony/she, seal/she, llama/she, yak/he, emu/she, puma/she,
    bison/he, kite/she, whale/she, rooster/he, tortoise/he, peacock/he ` },
  crowds: { slope: 32, words: `
    hens, geese, bees, mice, crows, sheep, ducks, cows, frogs, goats, ants, pigs, hares, doves, wolves, foxes, owls, moles, rooks, toads, deer, larks,
    wasps, newts, oxen, snails, gulls, moths, swans, otters, bats, cats, dogs, rats, calves, lambs, voles, jays, wrens, quails, gnats, herons, rabbits,
    storks, crabs, trout, eels, shrews, robins, finches, ponies, mules, ewes, rams, colts, kids, cubs, pups, elks, seals, slugs, terns, cranes, hawks ` },
  names: { slope: 60, words: `
    Rowan/he, Hazel/she, Pip/he, Fern/she, Tom/he, Nell/she, Moss/he, Ivy/she, Ned/he, Mab/she, Finn/he, Ada/she, Bram/he, Poppy/she, Odo/he, Tilly/she,
    Hob/he, Dora/she, Reed/he, Una/she, Tam/he, Olive/she, Milo/he, Rue/she, Basil/he, Elsie/she, Wick/he, Maud/she, Otis/he, Opal/she, Hugo/he,
    Tansy/she, Dill/he, Posy/she, Felix/he, Flora/she, Rufus/he, Juno/she, Alder/he, Willa/she, Cob/he, Minna/she, Linus/he, Bess/she, Ezra/he,
    Bryony/she, Gil/he, Cora/she, Burr/he, Dot/she, Colm/he, Effie/she, Digby/he, Gwen/she, Edgar/he, Hetty/she, Fitch/he, Ida/she, Gus/he, Moll/she,
    Hugh/he, Kitty/she, Ivo/he, Lottie/she, Jory/he, Mina/she, Ben/he, Meg/she, Sam/he, Oona/she, Wat/he, Prue/she, Jem/he, Quill/she, Hal/he, Ruth/she,
    Ike/he, Sukey/she, Zeb/he, Thea/she, Rafe/he, Ursa/she, Silas/he, Vera/she, Toby/he, Nan/she, Abe/he, Fay/she, Alf/he, Roz/she, Jud/he, Zora/she,
    Ulf/he, Kay/she, Wes/he, Tess/she, Lew/he, Eve/she, Dan/he, Bet/she, Huw/he, Jill/she, Knut/he, Liz/she, Ross/he, Nora/she, Stan/he, Polly/she,
    Vic/he, Sal/she, Walt/he, Peg/she, Max/he, Viv/she, Ted/he, Zoe/she ` },
  // A stranger's name is put together: Tavin, Grilda, Dorras.
  heads: { slope: 30, words: `B, T, M, P, D, N, R, L, F, W, H, J, K, G, S, V, Y, Z, Br, Tr, Dr, Gr, Fl, Cl, Bl, Pr, Kr, Sn, St, Sp, Tw, Gl` },
  hearts: { slope: 12, words: `i, o, a, u, e, ai` },
  tails: { slope: 14, words: `n, r, vin, lin, ton, ras, dra, mus, dan, lda, rna, nzo, lbo, rby, wyn, ria` },
  la: { slope: 200, words: syllables.join(", ") },

  looks: { slope: 40, words: `
    old, young, small, fat, thin, gray, brown, tall, white, big, black, red, plump, tiny, lean, wet, huge, pale, round, spry, stout, dusty,
    sleek, muddy, bald, lanky, squat, bony, wee, tan, slim, ruddy, bent, hairy, furry, trim, short, wiry, shorn, damp, burly, hale, drab, fair,
    dark, ashen, inky, sooty, scaly, warty, woolly, tawny, dapper, grimy, dirty, rosy, lithe, bulky, hefty, puny, runty, ragged, shaggy,
    spotted, striped, scruffy, ginger, freckled, one-eyed ` },
  traits: { slope: 54, words: `
    sly, proud, kind, lazy, greedy, shy, vain, wise, bold, timid, merry, meek, clever, humble, gruff, foolish, patient, brave, hasty, gentle, grumpy,
    honest, hungry, lonely, quiet, noisy, crafty, loyal, weary, clumsy, tidy, dreamy, solemn, silly, stern, mild, moody, idle, busy, modest, polite,
    rude, tender, fierce, wary, gloomy, jolly, fussy, plain, wild, tame, drowsy, witty, dull, dainty, eager, frank, giddy, hardy, placid, sullen, lucky,
    cross, cruel, famous, fickle, just, keen, smug, slow, strict, shrewd, simple, nosy, prim, calm, daft, good, bad, mean, nice, curt, glum, coy, mad,
    odd, deft, nimble, pious, sage, suave, tense, terse, vague, zany, droll, jaunty, serene, steady, trusty, curious, selfish, jealous, thrifty,
    boastful, stubborn, careful, cheerful ` },
  feelings: { slope: 32, words: `
    sad, glad, cold, hungry, tired, sorry, afraid, happy, wet, angry, ashamed, cross, content, sleepy, thirsty, late, lost, alone, brave, calm, puzzled,
    pleased, lonely, amused, bored, proud, sore, hopeful, jealous, merry, warm, dizzy, full, stiff, shy, uneasy, rested, rich, poor, safe, ready, sick,
    weary, worried, gloomy, quiet, dusty, ill, free, humble, foolish, numb, hot, mad, bold, weak, strong, vexed, lucky, old, young, small, homesick,
    startled ` },
  adverbs: { slope: 40, words: `
    softly, sadly, slowly, gladly, boldly, shyly, slyly, gently, quietly, quickly, at once, kindly, firmly, coldly, loudly, proudly, calmly, wisely,
    gravely, meekly, warmly, eagerly, happily, lightly, neatly, sternly, rudely, bravely, busily, crossly, dully, fondly, gruffly, humbly, idly, lazily,
    merrily, nobly, often, safely, sharply, simply, sweetly, swiftly, timidly, twice, wearily, wildly, badly, blindly, briskly, deftly, dimly, faintly,
    freely, gaily, grimly, hastily, lamely, madly, mildly, openly, plainly, rapidly, smugly, solemnly, in tears, in haste, all day, all night, on
    tiptoe, for fun, in vain, with care, with ease, for luck, for love, with a sigh, with a bow, with a grin ` },

  places: { slope: 59, words: `
    mill, barn, well, hill, pond, river, brook, gate, field, lane, wood, hedge, bridge, farm, road, ditch, shed, marsh, meadow, garden, cave, wall,
    fence, lake, inn, stable, forest, moor, spring, market, heath, tower, pit, fen, church, bog, dam, ford, shore, hollow, valley, ridge, grove, cliff,
    glen, town, park, den, path, bank, stream, ravine, gully, copse, hut, tent, camp, harbor, dock, ferry, canal, swamp, pump, trough, castle, chapel,
    dairy, quarry, island, beach, dune, creek, pool, puddle, gorge, stump, stile, kiln, forge, loft, porch, orchard, village, thicket, haystack, fort,
    bay, port, cove, crag, dell, knoll, reef, ruin, silo, tomb, vale, villa, weir, yard, attic, cabin, court, depot, hall, house, jetty, kitchen,
    larder, lodge, nook, oven, pier, plaza, shop, spire, stall, tavern ` },
  sites: { slope: 40, words: `
    old, green, dark, wet, dry, cold, red, deep, quiet, muddy, sunny, shady, windy, misty, mossy, stony, dusty, frozen, narrow, broad, steep, lonely,
    ruined, hidden, far, empty, busy, little, great, golden, gray, white, black, cool, warm, sandy, grassy, thorny, silent, sleepy, wild, lost, upper,
    lower, north, south, east, west, royal, snowy, leafy, last, next, new, big, long, wide, foggy, blue, icy, damp, rocky, dim, grim ` },
  trees: { slope: 10, words: `
    oak, elm, ash, fir, yew, pine, pear, willow, beech, birch, holly, plum, alder, hazel, larch, lime, fig, maple, poplar, rowan, cherry, cedar,
    aspen, quince, apple, spruce, lemon, olive, bay, palm, walnut, laurel` },
  ways: { slope: 8, words: `to, past, over, by, up, into, round, along, down, behind, across, toward, through, beyond, under, off to` },
  nears: { slope: 8, words: `by, near, behind, below, beside, above, beyond, far from, close to, at, outside, west of, east of, north of, south of, past` },

  things: { slope: 176, words: `
    bell, key, hat, pot, cup, coin, egg, rope, ring, boot, bone, book, jug, net, sack, drum, lamp, spoon, nest, bowl, cap, map, pan, pen, saw,
    jar, cart, flute, horn, kite, glove, shell, acorn, nail, spade, rake, plow, wheel, sled, boat, oar, hook, plate, ladle, knife, fork, pie,
    cake, tart, bun, wagon, chain, sail, flag, crown, medal, pipe, stool, chair, bench, table, clock, broom, brush, comb, quilt, stick, plank,
    log, brick, tile, lens, box, chest, trunk, crate, purse, pouch, apron, shawl, doll, top, bead, thorn, twig, tub, mug, vase, fan, axe, bag,
    bed, bib, bow, can, cog, cot, dish, fig, file, gem, gong, hoe, hoop, jewel, lid, lock, lute, mask, mat, melon, nut, onion, pail, pear, peg,
    pin, plum, quill, rod, rug, sash, scale, seed, shoe, sock, spear, stone, tray, urn, wand, whip, wig, yoke, tin, toy, trap, raft, ham, leaf,
    loom, hive, harp, beam, loaf, arrow, badge, ball, band, bar, barge, belt, bolt, candle, cane, canoe, card, cask, charm, chip, cloak, club,
    coat, cord, cork, crumb, cube, dart, desk, dial, die, door, drill, easel, feather, flask, flint, fur, globe, glue pot, goblet, gourd, grape,
    hammer, hatch, helm, hinge, hood, ink pot, jacket, kettle, knot, lantern, letter, lever, mast, mirror, mitten, mop, needle, oil can, paddle,
    pea, pebble, perch, pick, pillow, poker, pole, post, prop, rafter, ramp, razor, reed, ribbon, robe, rudder, ruler, scarf, scroll, seat,
    shelf, shield, sieve, skate, ski, slate, sling, spike, sponge, stamp, stove, strap, string, sword, tent, tie, torch, towel, veil, vest,
    vine, whistle, wick, anvil, album, amulet, awl, bale, beaker, bin, bloom, bob, boiler, bucket, bugle, buckle, bundle, cable, cage, carpet,
    cello, cleat, clog, clamp, coil, collar, crane, crib, crock, cymbal, dagger, damper, dome, dowel, fiddle, float, funnel, gauge, grill,
    gutter, hamper, handle, hatbox, hose, icon, iron, jack, jersey, keg, kilt, latch, leash, lyre, magnet, mallet, manger, marble, maypole,
    mitt, mortar, nozzle, ornament, packet, palette, pastry, patch, pedal, pendant, piano, pot lid, puppet, quiver, rack, rattle, reel, rocket,
    sandal, saucer, shovel, sickle, spindle, spool, spring, statue, stencil, tablet, tassel, thread, throne, ticket, toaster, trinket, trophy,
    trumpet, tunic, turban, valve, viola, violin, waffle, wreath, zither ` },
  sorts: { slope: 63, words: `
    big, old, new, wet, round, lost, torn, warm, heavy, tiny, huge, odd, broken, rusty, shiny, bent, clean, dirty, cheap, plain, smooth, rough,
    sharp, blunt, soft, hard, empty, dusty, muddy, moldy, sticky, stolen, magic, lucky, square, narrow, wide, long, short, flat, thick, thin,
    light, tall, loose, tight, worn, burnt, damp, dry, fresh, stale, fine, fancy, royal, rare, strange, pretty, ugly, wobbly, greasy, costly,
    wee, raw, dim, dull, neat, nice, oily, icy, hot, cold, cool, limp, stiff, solid, sturdy, whole, full, spare, snug, baggy, posh, humble,
    silent, noisy, hollow, cracked, patched, hidden, faded, carved, ancient, splendid, useful, stained, scuffed, chipped, dented, folded,
    labeled, frayed, gaudy, tacky, gritty, creaky, chunky, curvy, skinny, stout, crude, classy, quaint, plush, prized, public, secret, perfect,
    sacred, spotless, tidy, tatty, vast, weird, weighty ` },
  hues: { slope: 32, words: `
    red, blue, green, black, white, gray, brown, yellow, pink, gold, silver, tan, purple, orange, teal, mauve, lilac, amber, ivory, beige, ruby, jade,
    plaid, rose, lime, rust, pearl, navy, coral, crimson, checked, striped, scarlet, violet, indigo, khaki, maroon, cream, peach, plum, ochre, sand,
    mint, wine, fawn, buff, azure, cyan, puce, olive, russet, sepia, ebony, jet, dun, dotted, rosy, sooty, inky, milky, mossy, honey, ruddy, bay ` },
  stuffs: { slope: 34, words: `
    tin, oak, clay, brass, iron, glass, wool, silk, bone, straw, copper, lead, steel, paper, leather, stone, elm, pine, cork, felt, lace, wax, mud,
    horn, reed, linen, satin, velvet, wicker, bronze, sugar, ash, jade, amber, birch, cedar, maple, teak, yew, denim, flax, hemp, jute, tweed, fur,
    down, zinc, pewter, marble, slate, chalk, flint, coral, shell, rubber, bark, twig, moss, gum, tar, salt, rope, rag, tile, card, cane, gauze, fir,
    beech ` },
  fruits: { slope: 33, words: `
    figs, plums, pears, nuts, apples, dates, grapes, peas, beans, acorns, melons, limes, olives, prunes, lemons, sloes, berries, cherries, peaches,
    rolls, buns, tarts, pies, eggs, cakes, seeds, roots, yams, beets, leeks, radishes, turnips, onions, carrots, hams, fish, clams, crumbs, loaves,
    scones, waffles, biscuits, snacks, chops, ribs, stews, soups, jams, mints, mushrooms, muffins, oysters, almonds, currants, raisins, quinces, herbs,
    sprouts, peppers, pickles, pumpkins, marrows, pods, kernels, dumplings, pancakes ` },
  crops: { slope: 31, words: `
    corn, hay, oats, rye, wheat, barley, straw, bran, clover, cress, kale, garlic, parsley, cabbage, lettuce, millet, grass, flax, hops, moss,
    mint, salt, flour, rice, malt, dill, sage, thyme, basil, vinegar ` },
  treats: { slope: 32, words: `
    pie, jam, honey, bread, cake, cheese, milk, cream, butter, soup, ham, stew, toast, fudge, rice, gravy, cider, tea, ale, pudding, porridge,
    custard, toffee, broth, mead, curds, mush, syrup, jelly, bacon, punch, pasta, taffy, cocoa, coffee, lunch, squash, whey, juice, wine,
    mustard, pork, veal, beef, fish, gruel, goulash, trifle, marmalade, nougat, nectar, suet, sorbet, salsa, relish, pastry, oatmeal, gelato,
    dough, chowder, caramel, brine, sauce ` },
  tastes: { slope: 32, words: `
    ripe, sweet, sour, warm, fresh, cold, stale, dry, wild, red, salt, hot, green, burnt, cheap, plain, rich, soft, spiced, sticky, bitter,
    fine, golden, frozen, tough, moldy, raw, thick, tart, crisp, tender, gray, hard, salty, mild, juicy, mushy, nutty, smoked, boiled, baked,
    fried, pickled, toasted, creamy, crumbly, dusty, tasty, bland, sharp, dried, salted, candied, chilled, cheesy, tiny, big, small, pale, flat,
    round ` },
  numbers: { slope: 40, words: countables.join(", ") },

  months: { slope: 60, words: "May, June, July, March, April, August, October, November, January, December, February, September" },
  days: { slope: 60, words: countables.slice(0, 27).join(", ") },
  minutes: { slope: 200, words: Array.from({ length: 50 }, (_, i) => String(i + 10)).join(", ") },
  hours: { slope: 40, words: "6, 7, 5, 8, 4, 9, 3, 10, 2, 11, 12, 1" },
  moments: { slope: 20, words: `
    one day, at dawn, at dusk, at noon, one night, one fall, one evening, one morning, in spring, in summer, in winter, at harvest, at midnight,
    at sunset, at low tide, in the rain, in the snow, in the fog, in a storm, by moonlight, by starlight, after supper, after dark, before dawn,
    last year, last week, once, long ago, at sunrise, in autumn, on a feast day, on market day` },
  skies: { slope: 12, words: `
    rain, snow, hail, fog, mist, sleet, dew, frost, wind, smoke, moonlight, thunder, sunlight, dust, pollen, starlight, darkness, silence, drizzle,
    birdsong, steam, shadow, gloom, lightning, petals, twilight, haze, ice, heat, soot, music, ash` },
  falls: { slope: 10, words: `fell on, lay on, hid, filled, covered, came to, swept, blew over, left, passed, shook, crept up, hung over, met, spoiled, cooled` },

  moves: { slope: 40, words: `
    ran, went, crept, came, rode, hopped, slid, flew, fled, swam, raced, sped, stole, paced, roamed, leapt, slunk, loped, jogged, drove, strode,
    swung, sprang, dashed, rolled, rushed, sailed, walked, limped, padded, danced, ambled, bolted, hiked, lurched, pranced, rowed, skated,
    soared, swept, trod, veered, waded, trotted, climbed, sneaked, jumped, moved, hurried, marched, wandered, dived, drifted, edged, skied,
    skipped, strayed, tiptoed, trudged, zoomed ` },
  deeds: { slope: 61, words: `
    hid, sold, lost, found, cut, dug up, took, bit, shook, licked, broke, kept, stole, bought, washed, mended, buried, lifted, pulled, pushed, kicked,
    threw, caught, sat on, sang to, hung up, burned, chewed, fixed, folded, gnawed, hugged, kissed, missed, nudged, oiled, packed, patted, rubbed,
    shared, split, struck, tapped, wiped, owned, won, drew, dyed, hit, eyed, held, saw, tied, tugged, waxed, spied, prized, poked, pawed, pinned,
    nailed, marked, loved, hated, hurled, heaved, grabbed, dented, dusted, cursed, blessed, cracked, carved, built, tossed, dried, bent, begged for,
    asked for, bowed to, admired, counted, weighed, painted, polished, dropped, carried, sniffed, tasted, traded, studied, salted, guarded, dragged,
    wanted, lent, used, warmed, wore out, spoiled, stirred, praised, pocketed, peeled, mocked, laughed at, jabbed, fetched, feared, earned, cooled,
    cleaned, chipped, bumped, blamed, aired, measured, gave up, tipped over, knocked over, threw out, saved ` },
  tasks: { slope: 62, words: `
    hide, sell, find, cut, dig up, take, bite, shake, lick, break, fill, keep, lend, steal, drop, buy, wash, carry, mend, polish, bury, paint, open,
    close, lift, pull, push, kick, throw, catch, tie up, sweep, sniff, taste, weigh, count, sit on, look at, sing to, ask for, beg for, hang up, build,
    burn, borrow, chase, chew, clean, crack, drag, dry, dust, fix, fold, gnaw, guard, hug, kiss, lock up, make, oil, pack, patch, pat, praise, ring,
    rub, roll, ruin, scrub, share, split, stack, stir, strike, tap, tear, touch, toss, trim, use, warm, wipe, wear, wrap, study, spoil, smell, save,
    salt, pawn, own, trust, forget, fear, fetch, earn, win, draw, hold, hurt, leave, lose, move, need, reach, see, seize, serve, spare, watch, eye, hit,
    wax, dye, bend, rob, tow, tug, mock, love, hate, blame, curse, air ` },
  doings: { slope: 20, words: `
    mending, washing, hiding, selling, licking, filling, counting, dragging, chewing, cutting, dusting, fixing, folding, guarding, hugging, kicking,
    lifting, making, oiling, packing, pulling, pushing, rubbing, rolling, shaking, sniffing, stirring, sweeping, tapping, tasting, trimming,
    warming, weighing, wiping, wrapping, burying, carving, holding, praising, smelling, stacking, tearing, tying up, tossing, using, waxing, dyeing,
    bending, eating, airing, biting, blaming, building, burning, buying, drawing, drying, eyeing, hitting, mocking, patting, salting, scolding, watching` },
  sayings: { slope: 32, words: `
    said, cried, sang, sighed, called, wept, roared, lied, growled, hissed, muttered, laughed, replied, grumbled, snapped, sniffed, yawned, snorted,
    boasted, croaked, piped, shrugged, mumbled, howled, groaned, gasped, barked, bawled, chirped, coughed, drawled, joked, mused, moaned, noted, purred,
    rasped, scoffed, sneered, sobbed, squeaked, trilled, urged, vowed, warned, whined, wheezed, yelped, hummed, cooed, hooted, squawked, bleated,
    brayed, clucked, crowed, grunted, mooed, neighed, quacked, screeched, whispered, shouted, promised ` },
  tidings: { slope: 10, words: `
    heard, knew, saw, thought, swore, hoped, guessed, dreamed, said, feared, felt, claimed, found, forgot, noticed, believed, denied, doubted, learned,
    admitted, agreed, wrote, read, sang, vowed, lied, cried, joked, sighed, boasted, proved, warned` },
  trades: { slope: 12, words: `
    miller, farmer, baker, smith, king, queen, cook, tailor, weaver, judge, priest, potter, carter, tinker, cobbler, mason, nurse, hunter, widow, sailor,
    brewer, beggar, painter, clerk, duke, piper, monk, nun, scribe, squire, thief, page` },
  goods: { slope: 24, words: `
    love, hope, work, truth, faith, trust, wit, mercy, peace, sleep, patience, courage, kindness, honesty, wisdom, thrift, care, laughter, a song, a friend,
    a smile, rest, justice, modesty, good sense, a warm bed, a kind word, practice, charity, candor, duty, prudence, freedom, health, home, humility,
    a plain meal, loyalty, order, reason, silence, skill, an open door, a good name, honor, grace, learning, play, time, music, joy, zeal, ease, tact, tea,
    virtue, valor, pity, dance, a nap, a joke, a hug, bread, daylight` },
  bads: { slope: 24, words: `
    pride, greed, fear, haste, gold, envy, sloth, lies, spite, rage, fame, vanity, anger, luck, flattery, wealth, boasting, cunning, malice, gossip,
    strife, folly, debt, doubt, hunger, idleness, cruelty, a quarrel, a fine coat, a crown, theft, trickery, revenge, noise, hatred, waste, worry, a bad deal,
    a false friend, conceit, deceit, excuses, force, gambling, jealousy, meanness, neglect, panic, power, riches, scolding, tears, temper, threats,
    war, woe, guile, fraud, gloom, grief, scorn, shame, sorrow, sin` },
  beats: { slope: 12, words: `
    outlives, beats, outlasts, needs no, shames, mends, cures, outruns, feeds, tames, fears no, outweighs, hides from, follows, conquers, answers, forgives,
    outwits, drives out, softens, survives, buys no, melts, heals, lifts, mocks, defeats, disarms, ends, breaks, knows no, calms` },
  tricks: { slope: 40, words: `
    ask, beg, bow, climb, cook, count, cry, dance, dig, dream, drum, fish, float, fly, grow, hide, hop, hum, jump, juggle, knit, laugh, leap,
    lie, limp, mow, nap, pray, read, rest, row, run, sail, sew, sing, skate, sleep, smile, sneeze, snore, spin, swim, talk, think, travel, wait,
    walk, weave, weep, whistle, wink, work, worry, wrestle, write, yawn, yodel, bark, blush, chat, drift, nod, ski ` },
};

export const rules: Record<string, string[]> = {
  story: ["<opening><meeting><beat><tale4>\n\n"],
  tale4: ["7* <beat><tale3>", "<ending>"],
  tale3: ["3* <beat><tale2>", "<ending>"],
  tale2: ["<beat><tale1>", "<ending>"],
  tale1: ["<beat><ending>", "3* <ending>"],

  // Names the hero: binds hero and name.
  opening: [
    "3* <Time>, <looks.a> <hero=heroes> {named|called} <name=names> <moves> <ways> the <sites> <places>. ",
    "2* <name=names> was <traits.a> <hero=heroes> who {lived|slept|sang|hid} <nears> the <sites> <places>. ",
    "There {was|lived} <looks.a>, <traits> <hero=heroes> named <name=names>, and <name.he> could <tricks> and <tasks> <things.a>. ",
    "2* <nears.cap> the <sites> <places> lived <name=names>, <looks.a> and <traits> <hero=heroes>. ",
    "<skies.cap> <falls> the <places> the {day|night|week|year} <name=names>, <looks.a> <hero=heroes>, <deeds> <thing>. ",
    "<name=names> the <hero=heroes> {owned|wanted|had} <thing>, <food>, and <looks.a> {aunt|uncle|cousin|shadow}. ",
  ],

  // Names the other one, and what the story turns on: binds foe and prize.
  meeting: [
    "2* There <name.he> met <looks.a>{|, <traits>} <foe=foes> with <prized>. ",
    "2* <nears.cap> the <places> sat <looks.a> <foe=foes>, <doings> <prized>. ",
    "2* <looks.A> <foe=foes> <moves> by with <food>, <food>, and <prized>. ",
    "On the way <name.he> <deeds> <prized> that <traits.a> <foe=foes> had {lost|sold|hidden|made}. ",
    "<name.His> {rival|friend|cousin|teacher}, <looks.a> <foe=foes>, {wanted|owned|sold|lost} <prized>. ",
    "The <trades> had sent <traits.a> <foe=foes> to <tasks> <prized>. ",
  ],

  subject: ["2* <name>", "The <hero>", "<name.He>"],
  speaker: ["2* the <foe>", "<name>", "the <hero>"],
  // A big cup; a big red tin cup; a red tin cup.
  thing: ["<sorts.a> <things>", "2* <sorts.a> <hues> <stuffs> <things>", "<hues.a> <stuffs> <things>"],
  gear: ["<sorts> <things>", "2* <sorts> <hues> <stuffs> <things>", "<hues> <stuffs> <things>"],
  prized: ["<sorts.a> <prize=things>", "2* <sorts.a> <hues> <stuffs> <prize=things>", "<hues.a> <stuffs> <prize=things>"],
  object: ["2* <thing>", "<name.his> <gear>"],
  food: ["6* <numbers> <tastes> <fruits>", "<tastes> <treats>", "some <crops>"],
  // A stranger's name is put together: Tavin, Grilda, Dorras.
  friend: ["<heads><hearts><tails>"],
  friends: ["<friend> and <friend>", "2* <friend>, <friend>, and <friend>", "3* <friend>, <friend>, <friend>, and <friend>", "2* <friend>, <friend>, <friend>, <friend>, and <friend>"],
  time: ["<moments>", "at <hours>:<minutes>", "on <days> <months>"],
  Time: ["<moments.cap>", "At <hours>:<minutes>", "On <days> <months>"],

  beat: [
    "4* <subject> <deeds> <object> and <moves> <ways> the <sites> <places>. ",
    "3* <subject> {was|felt|grew} <feelings>, so <name.he> <deeds> <object>{| <time>}. ",
    "6* <quote> <sayings> <speaker>{| <adverbs>}. ",
    "14* <song> sang <speaker>. ",
    '3* "<question>?" asked <name>. <quote> <sayings> the <foe>{| <adverbs>}. ',
    '3* "<question>?" asked the <foe>. <quote> <sayings> <name>{| <adverbs>}. ',
    "<skies.cap> <falls> the <sites> <places>, and {<name>|the <foe>} {was|felt|grew} <feelings>. ",
    "2* The <foe> <moves> <ways> the <places> and {came|ran} back with <food>, <food>, and <thing>. ",
    "3* <subject> shared <food> and <food> with <friends>. ",
    "3* Then <friends> <moves> <ways> the <places> to <tasks> the <prize>. ",
    "2* Then <numbers> <looks> <crowds> <moves> <ways> the <sites> <places>. ",
    "The <foe> <tidings> that <crowds> {can|could|cannot|never} <tricks>{| <adverbs>}. ",
    "<name.He> {tried to|learned to|had to} <tricks> for <numbers> {days|nights|weeks|hours}, and ate <food> and <food>. ",
    "2* Under <sites.a> <trees> lay <thing>, <food>, <food>, and <thing>. ",
    "2* <friend> the <traits> <trades> <moves> by and <deeds> <thing>{| <adverbs>}. ",
    "3* The <foe> offered <thing>, <food>, <food>, and <food> for the <prize>. ",
    "<subject> <deeds> the <prize> and {hid|set|kept|left} it <nears> the <sites> <places>. ",
    "Not even <friend> the <trades> could <tasks> the <prize>. ",
    "3* <subject> dreamed of <thing>, <food>, and <numbers> <looks> <crowds>. ",
    "2* While the <foe> was <doings> <thing>, <name> <deeds> <object>. ",
  ],

  // Words in quotation marks; some begin with the speaker's call.
  quote: ['"<speech>,"', '2* "<call>! <speech>,"'],
  call: ["<la.cap>-<la>", "2* <la.cap>-<la>-<la>", "<la.cap>-<la>-<la>-<la>"],
  // Animals sing in their own tongue.
  song: [
    '"<verse>,"',
    '2* "<verse>, <la><la> <la><la><la>, <la><la> <la><la><la>,"',
    '"<verse>; <la><la> <la><la><la>, <la><la> <la><la>, <la><la><la> <la><la>,"',
  ],
  verse: ["<la.cap><la> <la><la><la>, <la><la> <la><la><la>", "<la.cap><la><la> <la><la>, <la><la><la> <la><la>"],
  speech: [
    "2* My <things> is <sorts>, and {I am|my <heroes> is|my <foes> is} <feelings>",
    "2* I can <tricks>, but I cannot <tasks> <thing>",
    "Give me <food> and the <prize> is yours",
    "4* I have <food>, <food>, and <thing>",
    "2* Never <tasks> <thing> {before|after|without|for} <treats>",
    "<crowds.cap> are <traits>, {and|but|so} I am <feelings>",
    "2* The <trades> {will|may|must|should} <tasks> your <gear>{| <time>}",
    "You are <feelings>, {friend|cousin|neighbor|my dear}, and I am <looks>",
    "2* <friends> <moves> <ways> the <places> <time>",
    "Whoever can <tricks> <adverbs> may <tasks> the <prize>",
    "<goods.cap> <beats> <bads>",
    "Only <looks.a> <foes> {can|will|would|should} <tasks> <thing>",
  ],
  question: [
    "2* {Can you|Will you|Why not|May I} <tasks> <thing>{| <time>}",
    "Who {hid|sold|found|lost} my <gear>",
    "What do <crowds> {do|eat|say|see} <time>",
    "Where are {my|your|the} <numbers> <tastes> <fruits>",
  ],

  ending: [
    "At last <name> <deeds> the <prize> and gave <food> to the <foe>. <moral>",
    "In the end the <foe> <moves> <ways> the <sites> <places>, {and|but} <name> kept the <prize>. <moral>",
    "So <name> and the <foe> shared <food> <nears> the <places>. <moral>",
    "From that day on the <hero> was {never|always|often} <feelings>{| <time>}. <moral>",
    "Never again did the <foe> <tasks> <thing>. <moral>",
    "That night they sat under the <trees> with <friends> and ate <food>, <food>, and <food>. <moral>",
    "2* And when the <foe> {sang|called|cried} <song> {all was well|all was forgiven|even the <trades> danced|<friends> joined in}. <moral>",
  ],

  moral: [
    "4* <goods.cap> <beats> <bads>.",
    "2* Better <tastes> <treats> in {peace|company|a barn|old age} than <thing> in {fear|debt|a ditch|a dream}.",
    "2* {Do not|Never|Only fools|Try not to} <tasks> <thing> {you|they|friends|kings} cannot <tasks>.",
    "2* {Those|Fools|Friends|Guests} who <tasks> <thing> {seldom|never|always|often} <tricks> <adverbs>.",
    "2* <traits.A> {heart|tongue|eye|ear|head|mind|guest|king} needs no <gear>.",
    "Even <looks.a> <heroes> can <tasks> <thing>.",
  ],
};

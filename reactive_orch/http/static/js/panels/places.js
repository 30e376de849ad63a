// Where each cell is, for a width. Pure.

const GAP_SHARE = 0.12, GAP_MIN = 3, GAP_MAX = 12, MANY = 256, SPARE = 1.3, TALLEST_PX = 96;
const LARGE = { usual: 14, least: 7, most: 26, line: 19, tall: 16 };
const SMALL = { usual: 8, least: 4, most: 26, line: 11, tall: 9 };

let last = { asked: [] };

/** As `plan`; what was asked last is known, as most messages move nothing. */
export function arrange(rows, ids, width) {
  const owned = rows.map((p) => p.owners), asked = [width, ids.join(), ...owned];
  if (asked.length !== last.asked.length || asked.some((one, i) => one !== last.asked[i])) {
    last = { asked, plan: plan(owned, ids, width) };
  }
  return last.plan;
}

/**
 * A column for each worker, and one for what nobody owns. Where columns would be too narrow, `columns` is null, and the
 * cells of a row run on from worker to worker; so do those of a row of which nobody owns anything.
 */
function plan(owned, ids, width) {
  const index = new Map(ids.map((id, i) => [id, i])), nobody = ids.length;
  const columnOf = (owner) => index.get(owner) ?? nobody;
  const shares = owned.map((owners) => counted(owners, columnOf));
  const lacking = shares.some((share) => share.has(nobody) && share.size > 1);
  const columns = lacking ? [...ids, 0] : ids, number = Math.max(1, columns.length);
  const gap = Math.min(GAP_MAX, Math.max(GAP_MIN, (width / number) * GAP_SHARE));
  const column = (width - gap * (number - 1)) / number;
  const apart = shares.map((share) => (share.size === 1 && share.has(nobody) ? null : inColumns(share, width, column)));
  const low = (grid) => !grid || grid.height <= Math.max(TALLEST_PX, 1.5 * grid.usual);
  const fits = column >= SMALL.usual && apart.every(low);
  const grids = shares.map((share, i) => (fits && apart[i] ? apart[i] : inOne(share, width)));
  const left = (at) => at * (column + gap);
  const places = new Map(owned.map((owners, i) => [owners, placed(owners, columnOf, grids[i], left, shares[i])]));
  return { columns: fits ? columns : null, column, left: (id) => left(columnOf(id)), places, sizes: grids.map(sizes) };
}

/**
 * How many lines there are depends on the width alone, so that no rebalance moves what is below; only a row whose
 * shares are far from equal, as of a projection that one worker has for itself, is higher, or its cells smaller.
 */
function inColumns(share, width, column) {
  const most = Math.max(...share.values()), all = total(share);
  const grid = (size) => {
    const usual = Math.ceil((all * SPARE) / Math.floor(width / size.usual));
    const lines = Math.max(usual, Math.ceil(most / Math.max(1, Math.floor(column / size.least))));
    const across = Math.ceil(most / lines);
    const pitch = Math.min(size.most, column / across);
    return { size, lines, across, pitch, usual: usual * size.line, height: lines * size.line };
  };
  const large = grid(LARGE);
  return all > MANY || large.height > large.usual ? grid(SMALL) : large;
}

function inOne(share, width) {
  const all = total(share), size = all > MANY ? SMALL : LARGE, across = Math.floor(width / size.usual);
  return { size, across, lines: Math.ceil(all / across), pitch: width / across, running: true };
}

const total = (share) => [...share.values()].reduce((a, b) => a + b, 0);

const sizes = ({ size, lines, pitch }) => ({
  "--pitch": `${pitch.toFixed(2)}px`, "--tall": `${lines > 1 ? size.tall : size.line + 5}px`,
  "--height": `${Math.max(lines * size.line, 27)}px`,
});

function placed(owners, columnOf, { size, across, pitch, running }, left, share) {
  const next = running ? begins(share) : new Map();
  return owners.map((owner) => {
    const column = columnOf(owner), i = next.get(column) ?? 0;
    next.set(column, i + 1);
    const x = (running ? 0 : left(column)) + (i % across) * pitch;
    return `translate(${x.toFixed(1)}px, ${Math.floor(i / across) * size.line}px)`;
  });
}

function counted(owners, columnOf) {
  const counts = new Map();
  for (const owner of owners) counts.set(columnOf(owner), (counts.get(columnOf(owner)) ?? 0) + 1);
  return counts;
}

/** Where cells run on: what each worker's first one is counted from. */
function begins(share) {
  let sum = 0;
  return new Map([...share].sort(([a], [b]) => a - b).map(([column, number]) => [column, (sum += number) - number]));
}

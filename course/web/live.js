"use strict";
// The model

const byId = id => document.getElementById(id);
const data = JSON.parse(byId("model").textContent);

function bytes(text) {
  return Uint8Array.from(atob(text), letter => letter.charCodeAt(0)).buffer;
}

function halves(text) {  // float16 to numbers; the weights hold no infinities
  return Float64Array.from(new Uint16Array(bytes(text)), bits => {
    const exponent = (bits >> 10) & 31, fraction = bits & 1023;
    return (bits >> 15 ? -1 : 1) * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction);
  });
}

const layer = ([weight, bias]) => ({weight: halves(weight), bias: halves(bias)});
const encoder = data.encoder.map(layer), decoder = data.decoder.map(layer);
const toMu = layer(data.to_mu), toLogVar = layer(data.to_log_var), toOutput = layer(data.to_output);
const WIDTH = toOutput.weight.length / 784;  // of the decoder's last hidden layer
const N = data.points, HALF = data.half_width, STEP = 2 * HALF / (N - 1);
const LOG_2PI = Math.log(2 * Math.PI);
const sumsOfSoftplus = new Float32Array(bytes(data.sums));  // S(z) at each grid point
const hidden = new Float32Array(N * N * WIDTH);  // h(z) there, filled by prepare()

const silu = value => value / (1 + Math.exp(-value));
const sigmoid = value => 1 / (1 + Math.exp(-value));

function linear({weight, bias}, input) {  // weight: for each input, the outputs' numbers one after another
  const output = new Float64Array(bias), width = output.length;
  for (let j = 0, k = 0; j < input.length; j++, k += width) {
    const value = input[j];
    if (value) for (let i = 0; i < width; i++) output[i] += weight[k + i] * value;
  }
  return output;
}

const through = (layers, input) => layers.reduce((value, each) => linear(each, value).map(silu), input);

function encode(x) {
  const features = through(encoder, Float64Array.from(x));
  return {mu: [...linear(toMu, features)], logVar: [...linear(toLogVar, features)]};
}

function decode(z) {
  return linear(toOutput, through(decoder, Float64Array.from(z)));
}

function logProb(x, logits) {  // the sum of x * logit - softplus(logit); a product of 784 factors below 2 has one log
  let sum = 0, product = 1;
  for (let d = 0; d < 784; d++) {
    sum += x[d] * logits[d] - Math.max(logits[d], 0);
    product *= 1 + Math.exp(-Math.abs(logits[d]));
  }
  return sum - Math.log(product);
}

const PART = 8;  // milliseconds of work after which a hand has its turn

async function inParts(work, progress = () => {}, stopped = () => false) {  // runs a generator to its end, or until stopped
  for (let since = performance.now(); ;) {
    const {done, value} = work.next();
    if (done) return value;
    if (performance.now() - since < PART) continue;
    progress(value);
    await new Promise(resolve => setTimeout(resolve));
    if (stopped()) return null;
    since = performance.now();
  }
}

function atOnce(work) {
  for (;;) {
    const {done, value} = work.next();
    if (done) return value;
  }
}

const hiddenAt = (i, j) => through(decoder, Float64Array.of(i * STEP - HALF, j * STEP - HALF));

function* prepareCoarse() {  // every second point, and h(z) interpolated between them; yields the share that is done
  const half = (N + 1) / 2, row = half * WIDTH, run = new Float64Array(half * row);
  for (let i = 0; i < half; i++) {
    for (let j = 0; j < half; j++) run.set(hiddenAt(2 * i, 2 * j), i * row + j * WIDTH);
    yield 0.8 * i / half;
  }
  for (let i = 0; i < N; i++) {
    hidden.set(finer(finerRow(run, half, row, 2, i), half, WIDTH, 2), i * N * WIDTH);
    yield 0.8 + 0.2 * i / N;
  }
}

function* prepareRest() {
  for (let i = 0; i < N; i++) {
    for (let j = 0; j < N; j++) if ((i | j) & 1) hidden.set(hiddenAt(i, j), (i * N + j) * WIDTH);
    yield i / N;
  }
}

// log p(x, z) on the grid

function logJoint(x) {
  const v = new Float64Array(WIDTH), joint = new Float64Array(N * N);
  let c = -LOG_2PI, highest = -Infinity;
  for (let d = 0; d < 784; d++) {
    if (!x[d]) continue;
    c += toOutput.bias[d];
    for (let k = 0; k < WIDTH; k++) v[k] += toOutput.weight[k * 784 + d];
  }
  for (let i = 0, g = 0, k = 0; i < N; i++) {
    for (let j = 0; j < N; j++, g++) {
      let sum = 0;
      for (let m = 0; m < WIDTH; m++) sum += hidden[k++] * v[m];
      joint[g] = sum + c - sumsOfSoftplus[g] - ((i * STEP - HALF) ** 2 + (j * STEP - HALF) ** 2) / 2;
      if (joint[g] > highest) highest = joint[g];
    }
  }
  return {joint, highest};
}

// log p(x) by the trapezoid rule. Where few points hold the posterior's mass, it is too narrow for the grid. So the square
// about each of them, of side STEP, is cut into parts * parts squares, and the decoder is run at the middle of each.
const POINTS_TO_RUN = 800;

function* fineSum(x, {joint, highest}) {
  const marked = new Set();
  for (let i = 0, g = 0; i < N; i++)
    for (let j = 0; j < N; j++, g++)
      if (joint[g] > highest - 16)
        for (const k of [-1, 0, 1]) for (const l of [-1, 0, 1]) marked.add((i + k) * 2 * N + j + l + 1);
  const parts = Math.ceil(Math.sqrt(POINTS_TO_RUN / marked.size));
  if (parts === 1) return coarseSum({joint, highest});
  const offsets = Array.from({length: parts}, (_, k) => (k + 0.5) / parts - 0.5);
  let sum = 0;
  for (const key of marked) {
    const row = Math.floor(key / (2 * N)), column = key % (2 * N) - 1;
    for (const k of offsets) {
      for (const l of offsets) {
        const z = [(row + k) * STEP - HALF, (column + l) * STEP - HALF];
        sum += Math.exp(logProb(x, decode(z)) - (z[0] ** 2 + z[1] ** 2) / 2 - LOG_2PI - highest);
      }
    }
    yield;
  }
  return highest + Math.log(sum) + 2 * Math.log(STEP / parts);
}

function coarseSum({joint, highest}) {
  let sum = 0;
  for (const value of joint) if (value > highest - 40) sum += Math.exp(value - highest);
  return highest + Math.log(sum) + 2 * Math.log(STEP);
}

// For the pictures: the posterior between the grid's points

function boxOf(joint, floor) {  // first and last row and column with a value above `floor`, and four more on each side
  let [top, bottom, left, right] = [N, 0, N, 0];
  for (let i = 0, g = 0; i < N; i++) {
    for (let j = 0; j < N; j++, g++) {
      if (joint[g] > floor) {
        if (i < top) top = i;
        bottom = i;
        if (j < left) left = j;
        if (j > right) right = j;
      }
    }
  }
  return {top: Math.max(0, top - 4), bottom: Math.min(N - 1, bottom + 4),
          left: Math.max(0, left - 4), right: Math.min(N - 1, right + 4)};
}

function finerRow(values, rows, columns, factor, p) {  // row p of `factor` for each: Lagrange, eight neighbours
  const output = new Float64Array(columns);
  const base = Math.min(Math.max(Math.floor(p / factor) - 3, 0), rows - 8), t = p / factor - base;
  for (let q = 0; q < 8; q++) {
    let weight = 1;
    for (let r = 0; r < 8; r++) if (r !== q) weight *= (t - r) / (q - r);
    if (weight === 0) continue;
    for (let j = 0; j < columns; j++) output[j] += weight * values[(base + q) * columns + j];
  }
  return output;
}

function finer(values, rows, columns, factor) {
  const length = (rows - 1) * factor + 1, output = new Float64Array(length * columns);
  for (let p = 0; p < length; p++) output.set(finerRow(values, rows, columns, factor, p), p * columns);
  return output;
}

function turned(values, rows, columns) {
  const output = new Float64Array(values.length);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) output[j * rows + i] = values[i * columns + j];
  return output;
}

function posterior(x) {
  const {joint, highest} = logJoint(x), box = boxOf(joint, highest - 18);
  const rows = box.bottom - box.top + 1, columns = box.right - box.left + 1;
  const factor = Math.max(1, Math.min(4, Math.floor(240 / Math.max(rows, columns))));
  const part = new Float64Array(rows * columns);
  for (let i = 0; i < rows; i++)
    part.set(joint.subarray((box.top + i) * N + box.left, (box.top + i) * N + box.right + 1), i * columns);
  const high = (rows - 1) * factor + 1, wide = (columns - 1) * factor + 1;
  const once = turned(finer(part, rows, columns, factor), high, columns);
  const density = turned(finer(once, columns, high, factor), wide, high);  // of z1 downwards, z2 to the right
  const peak = density.reduce((most, value) => Math.max(most, value), -Infinity);
  for (let g = 0; g < density.length; g++) density[g] = Math.exp(density[g] - peak);
  const step = STEP / factor;
  let cut = false;  // whether mass lies at the grid's edge
  for (let i = 0; i < N; i++)
    cut ||= Math.max(joint[i], joint[(N - 1) * N + i], joint[i * N], joint[i * N + N - 1]) > highest - 8;
  return {joint, highest, cut, density, high, wide, step, low: [box.top * STEP - HALF, box.left * STEP - HALF]};
}

// E_q log p(x|z): by Gauss and Hermite's rule where q is narrow, else over the grid, by the trapezoid rule

function* hermite(x, {mu, std}, {nodes, weights}) {
  let sum = 0;
  for (const [i, a] of nodes.entries()) {
    for (const [j, b] of nodes.entries())
      sum += weights[i] * weights[j] * logProb(x, decode([mu[0] + std[0] * a, mu[1] + std[1] * b]));
    yield;
  }
  return sum;
}

function overGrid({joint, mu, std}) {
  const q = [0, 1].map(k => Float64Array.from({length: N}, (_, i) =>
    Math.exp(-(((i * STEP - HALF - mu[k]) / std[k]) ** 2) / 2)));
  let sum = 0, total = 0;
  for (let i = 0, g = 0; i < N; i++) {
    for (let j = 0; j < N; j++, g++) {
      const weight = q[0][i] * q[1][j];
      if (weight < 1e-16) continue;
      sum += weight * (joint[g] + LOG_2PI + ((i * STEP - HALF) ** 2 + (j * STEP - HALF) ** 2) / 2);
      total += weight;
    }
  }
  return sum / total;
}

function whole(found, logPx, reconstruction, exact) {
  const elbo = reconstruction - found.kl;
  return {...found, logPx, reconstruction, elbo, gap: logPx - elbo, exact};
}

function sketch(x) {  // for a hand that moves: log p(x) by the grid alone, and half the nodes
  const {mu, logVar} = encode(x), std = logVar.map(value => Math.exp(value / 2));
  const kl = [0, 1].reduce((sum, k) => sum + (mu[k] ** 2 + Math.exp(logVar[k]) - logVar[k] - 1) / 2, 0);
  const onGrid = [0, 1].every(k => std[k] > 1.5 * STEP && Math.abs(mu[k]) + 6 * std[k] < HALF);
  const found = {mu, logVar, std, kl, onGrid, ...posterior(x)};
  return whole(found, coarseSum(found), onGrid ? overGrid(found) : atOnce(hermite(x, found, data.hermite[0])), false);
}

function* refine(x, found) {  // the exact numbers of a sketch
  const logPx = yield* fineSum(x, found);
  return whole(found, logPx, found.onGrid ? found.reconstruction : yield* hermite(x, found, data.hermite[1]), true);
}

const measure = x => atOnce(refine(x, sketch(x)));

// From strokes to MNIST's form. A stroke is a list of points [x, y] in any unit, y downwards.

const PEN = 1.15, BOX = 20;  // the pen's radius and the digit's box, in pixels of 28 x 28

function rendered(strokes) {  // grey in [0, 1]: how much of a pixel the pen covers
  const grey = new Float64Array(784);
  for (const stroke of strokes) {
    stroke.forEach(([bx, by], index) => {
      const [ax, ay] = stroke[Math.max(index - 1, 0)], dx = bx - ax, dy = by - ay, square = dx * dx + dy * dy;
      const reach = PEN + 1, rows = [Math.min(ay, by) - reach, Math.max(ay, by) + reach];
      for (let row = Math.max(0, Math.floor(rows[0])); row <= Math.min(27, rows[1]); row++) {
        for (let column = 0; column < 28; column++) {
          const along = square && Math.min(1, Math.max(0, ((column - ax) * dx + (row - ay) * dy) / square));
          const distance = Math.hypot(column - ax - along * dx, row - ay - along * dy);
          const covered = Math.min(1, Math.max(0, PEN + 0.5 - distance));
          if (covered > grey[row * 28 + column]) grey[row * 28 + column] = covered;
        }
      }
    });
  }
  return grey;
}

function toMnist(strokes) {  // a dot stays a dot: the scale has an upper end
  const points = strokes.flat();
  if (!points.length) return new Float64Array(784);
  const [lowX, lowY, highX, highY] = [Math.min, Math.max].flatMap(
    end => [0, 1].map(axis => end(...points.map(point => point[axis]))));
  const scale = Math.min((BOX - 2 * PEN) / Math.max(highX - lowX, highY - lowY), 3 / 10);
  const moved = (shiftX, shiftY) => strokes.map(stroke => stroke.map(
    ([x, y]) => [(x - (lowX + highX) / 2) * scale + 13.5 + shiftX, (y - (lowY + highY) / 2) * scale + 13.5 + shiftY]));
  const grey = rendered(moved(0, 0)), mass = grey.reduce((sum, value) => sum + value, 0);
  const centre = weight => grey.reduce((sum, value, d) => sum + value * weight(d), 0) / mass;
  return rendered(moved(13.5 - centre(d => d % 28), 13.5 - centre(d => Math.floor(d / 28))))
    .map(value => value >= 0.5 ? 1 : 0);
}

// Presets, in a square of side 200

const arc = (x, y, rx, ry, from, to) => Array.from({length: 25}, (_, i) => {
  const angle = (from + (to - from) * i / 24) * Math.PI / 180;
  return [x + rx * Math.cos(angle), y + ry * Math.sin(angle)];
});
const PRESETS = {
  "0": [arc(100, 100, 58, 84, -80, 280)],
  "1": [[[112, 18], [92, 184]]],
  "2": [[...arc(92, 66, 56, 48, -165, 35), [40, 172], [168, 168]]],
  "3": [[...arc(90, 62, 52, 42, -150, 90), ...arc(90, 140, 58, 42, -90, 150)]],
  "4": [[[68, 22], [42, 108], [150, 102]], [[136, 48], [122, 186]]],
  "5": [[[152, 24], [72, 26], [62, 88], ...arc(92, 130, 56, 46, -110, 150)]],
  "6": [[[122, 18], [78, 80], ...arc(96, 138, 44, 42, 190, -170)]],
  "7": [[[42, 34], [156, 30], [92, 186]]],
  "8": [[...arc(102, 60, 40, 38, 90, -270), ...arc(100, 140, 48, 42, -90, 270)]],
  "9": [[...arc(94, 66, 46, 42, -10, -370), [134, 100], [116, 186]]],
  "4 or 9": [[[124, 32], [70, 40], [52, 84], [76, 104], [134, 92]], [[138, 34], [120, 186]]],
  "letter": [[[30, 180], [44, 20], [100, 110], [156, 20], [170, 180]]],
  "empty": [],
};
// The page: what is drawn, where the point stands, and everything that follows from the two

const state = {strokes: [], x: new Float64Array(784), found: null, point: [0, 0], follows: true, view: null, ready: false,
               complete: false, eps: [0, 0], noise: new Float64Array(784)};
const MAP = 4, TILES = 16;  // the whole map shows [-4, 4] squared
const reduceTo = (value, low, high) => Math.min(high, Math.max(low, value));
const nats = value => value.toFixed(Math.abs(value) < 10 ? 2 : 1).replace("-", "−");
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function picture(values, wide = 28, high = 28) {  // grey values in [0, 1] as a canvas of that size
  const canvas = Object.assign(document.createElement("canvas"), {width: wide, height: high});
  const image = new ImageData(wide, high);
  values.forEach((value, d) => image.data.set([255 * value, 255 * value, 255 * value, 255], 4 * d));
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function show(id, values) {
  byId(id).getContext("2d").drawImage(picture(values), 0, 0);
}

function drawPad() {
  const pad = byId("pad"), context = pad.getContext("2d");
  context.fillStyle = "#000";
  context.fillRect(0, 0, 200, 200);
  Object.assign(context, {strokeStyle: "#fff", lineWidth: 16, lineCap: "round", lineJoin: "round"});
  for (const stroke of state.strokes) {
    context.beginPath();
    context.moveTo(...stroke[0]);
    stroke.forEach(point => context.lineTo(...point));
    context.stroke();
  }
}

function heat() {  // the posterior as an image: z1 to the right, z2 upwards
  const {density, high, wide} = state.found, [red, green, blue] = colour("--heat").split(" ").map(Number);
  const canvas = Object.assign(document.createElement("canvas"), {width: high, height: wide});
  const image = new ImageData(high, wide);
  for (let row = 0, k = 0; row < wide; row++) {
    for (let column = 0; column < high; column++, k += 4) {
      const share = density[column * wide + wide - 1 - row];
      if (share < 1e-3) continue;
      image.data[k] = red; image.data[k + 1] = green; image.data[k + 2] = blue;
      image.data[k + 3] = 255 * share ** 0.6;
    }
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function viewOf({density, high, wide, step, low, mu, std}) {  // the square of the close-up: posterior and ellipse
  const ends = [0, 1].map(k => [mu[k] - 2.5 * std[k], mu[k] + 2.5 * std[k]]);
  for (let a = 0, g = 0; a < high; a++) {
    for (let b = 0; b < wide; b++, g++) {
      if (density[g] < 0.01) continue;
      const z = [low[0] + a * step, low[1] + b * step];
      for (const k of [0, 1]) ends[k] = [Math.min(ends[k][0], z[k]), Math.max(ends[k][1], z[k])];
    }
  }
  const half = 0.6 * Math.max(0.2, ...ends.map(([from, to]) => to - from));
  return {centre: ends.map(([from, to]) => (from + to) / 2), half};
}

function toScreen(canvas, {centre, half}) {
  const scale = canvas.width / (2 * half);
  return z => [(z[0] - centre[0] + half) * scale, (centre[1] + half - z[1]) * scale];
}

function cross(context, [x, y]) {
  for (const [width, style] of [[5, "#000"], [2, "#fff"]]) {
    Object.assign(context, {lineWidth: width, strokeStyle: style});
    context.beginPath();
    context.moveTo(x - 10, y); context.lineTo(x + 10, y);
    context.moveTo(x, y - 10); context.lineTo(x, y + 10);
    context.stroke();
  }
}

function place(context, screen, image) {
  const {low, high, wide, step} = state.found;
  const [left, top] = screen([low[0] - step / 2, low[1] + (wide - 0.5) * step]);
  const [right, bottom] = screen([low[0] + (high - 0.5) * step, low[1] - step / 2]);
  context.drawImage(image, left, top, right - left, bottom - top);
}

let mosaic = null;

function drawMaps() {
  const {mu, std} = state.found, image = heat(), whole = byId("map"), close = byId("close");
  let context = whole.getContext("2d"), screen = toScreen(whole, {centre: [0, 0], half: MAP});
  context.drawImage(mosaic, 0, 0);
  place(context, screen, image);
  Object.assign(context, {lineWidth: 2, strokeStyle: colour("--on-map")});
  const {centre, half} = state.view, corner = screen([centre[0] - half, centre[1] + half]);
  const side = Math.max(half * whole.width / MAP, 14), shift = (side - half * whole.width / MAP) / 2;
  context.strokeRect(corner[0] - shift, corner[1] - shift, side, side);
  cross(context, screen(state.point));

  context = close.getContext("2d");
  screen = toScreen(close, state.view);
  context.fillStyle = colour("--paper");
  context.fillRect(0, 0, close.width, close.height);
  place(context, screen, image);
  const unit = close.width / (2 * half);
  Object.assign(context, {lineWidth: 3, strokeStyle: colour("--q")});
  for (const times of [1, 2]) {
    context.setLineDash(times === 2 ? [8, 6] : []);
    context.beginPath();
    context.ellipse(...screen(mu), times * std[0] * unit, times * std[1] * unit, 0, 0, 2 * Math.PI);
    context.stroke();
  }
  context.setLineDash([]);
  ticks(context, close, screen);
  cross(context, screen(state.point));
}

function ticks(context, canvas, screen) {
  const {centre, half} = state.view, size = [0.05, 0.1, 0.2, 0.5, 1, 2, 5].find(step => half / step < 3.2) ?? 5;
  Object.assign(context, {font: "13px system-ui, sans-serif", fillStyle: colour("--soft"), strokeStyle: colour("--soft"),
                          lineWidth: 1});
  for (const k of [0, 1]) {
    for (let t = Math.ceil((centre[k] - 0.9 * half) / size); t * size < centre[k] + 0.85 * half; t++) {
      const value = t * size, [x, y] = screen(k ? [0, value] : [value, 0]);
      const text = value.toFixed(size < 0.1 ? 2 : 1).replace("-", "−");
      context.beginPath();
      if (k) { context.moveTo(0, y); context.lineTo(6, y); context.fillText(text, 9, y + 4); }
      else { context.moveTo(x, canvas.height); context.lineTo(x, canvas.height - 6);
             context.fillText(text, x - 12, canvas.height - 10); }
      context.stroke();
    }
  }
}

function* warm() {  // the browser compiles what a stroke runs before there is one
  for (const name of ["empty", "1", "4", "empty", "1", "4"]) {
    viewOf(sketch(toMnist(PRESETS[name])));
    yield 1;
  }
}

function* makeMosaic() {
  const canvas = Object.assign(document.createElement("canvas"), {width: 448, height: 448});
  const context = canvas.getContext("2d"), tile = 2 * MAP / TILES;
  for (let i = 0; i < TILES; i++) {
    for (let j = 0; j < TILES; j++)
      context.drawImage(picture(decode([(i + 0.5) * tile - MAP, MAP - (j + 0.5) * tile]).map(l => 0.62 * sigmoid(l))),
                        28 * i, 28 * j);
    yield 1;
  }
  return canvas;
}

function drawNumbers() {
  const {logPx, elbo, gap, reconstruction, kl, cut, exact} = state.found;
  for (const [id, value] of Object.entries({"log-px": logPx, elbo, gap, reconstruction, kl}))
    byId(id).textContent = (exact || id === "kl" ? "" : "≈ ") + nats(value);
  for (const [id, width] of [["bar-gap", gap], ["bar-kl", kl]])
    byId(id).style.width = `${reduceTo(100 * width / Math.max(gap, kl, 10), 0, 100)}%`;
  const {from, width, counts} = data.histogram;
  byId("marker").style.left = `${reduceTo(100 * (logPx - from) / (width * counts.length), 0, 100)}%`;
  byId("rank").textContent = `${data.ranks.filter(value => value < logPx).length}`;
  byId("outside").hidden = !cut;
}

function drawPictures() {
  const {mu, std} = state.found, drawn = decode(mu.map((value, k) => value + std[k] * state.eps[k])).map(sigmoid);
  show("seen", state.x);
  show("reconstruction-mean", decode(mu).map(sigmoid));
  show("draw-mean", drawn);
  show("draw-pixels", drawn.map((p, d) => Number(state.noise[d] < p)));
}

function drawPoint() {
  const logits = decode(state.point), probs = logits.map(sigmoid);
  show("point-mean", probs);
  show("point-pixels", probs.map((p, d) => Number(state.noise[d] < p)));
  byId("z").textContent = state.point.map(value => value.toFixed(2).replace("-", "−")).join(", ");
  byId("log-px-given-z").textContent = nats(logProb(state.x, logits));
}

let times = [], waitingForRest = null;

function update(pause = 120) {  // a sketch now; the exact numbers once no hand moves for that many milliseconds
  clearTimeout(waitingForRest);
  if (!state.ready) return drawPad();
  const start = performance.now();
  drawPad();
  state.x = toMnist(state.strokes);
  state.found = sketch(state.x);
  state.view = viewOf(state.found);
  if (state.follows) state.point = state.found.mu.map(value => reduceTo(value, -MAP, MAP));
  drawMaps();
  drawNumbers();
  drawPictures();
  drawPoint();
  times = [...times.slice(-50), performance.now() - start];
  byId("milliseconds").textContent = times.at(-1).toFixed(0);
  if (state.complete) waitingForRest = setTimeout(rest, pause);
}

async function rest() {
  const {x, found} = state, better = await inParts(refine(x, found), undefined, () => state.found !== found);
  if (!better) return;
  state.found = better;
  drawNumbers();
  announce();
}

let waiting = null;

function announce() {  // once the hand rests
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    const {logPx, elbo, gap} = state.found;
    byId("status").textContent = `log p(x) ${nats(logPx)}, ELBO ${nats(elbo)}, gap ${nats(gap)} nats. ` +
      `Point at ${byId("z").textContent}: log p(x given z) ${byId("log-px-given-z").textContent}.`;
  }, 700);
}

let asked = false;

function soon() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => { asked = false; update(); });
}

function movePoint(z) {
  if (!state.ready) return;
  state.point = z.map(value => reduceTo(value, -MAP, MAP));
  state.follows = false;
  drawMaps();
  drawPoint();
  announce();
}

// What a hand does

function at(canvas, event) {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) * canvas.width / box.width, (event.clientY - box.top) * canvas.height / box.height];
}

function onDrag(canvas, begin, go) {
  canvas.addEventListener("pointerdown", event => {
    if (event.button) return;
    canvas.setPointerCapture(event.pointerId);
    canvas.dragged = event.pointerId;
    begin(at(canvas, event));
  });
  canvas.addEventListener("pointermove", event => {
    if (canvas.dragged === event.pointerId) event.getCoalescedEvents().concat(event).forEach(each => go(at(canvas, each)));
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { canvas.dragged = null; });
}

onDrag(byId("pad"), point => { unpress(); state.strokes.push([point]); soon(); },
       point => { state.strokes.at(-1).push(point); soon(); });
for (const [id, view] of [["map", () => ({centre: [0, 0], half: MAP})], ["close", () => state.view]]) {
  const canvas = byId(id), go = ([x, y]) => {
    const {centre, half} = view(), scale = 2 * half / canvas.width;
    movePoint([centre[0] - half + x * scale, centre[1] + half - y * scale]);
  };
  onDrag(canvas, go, go);
  canvas.addEventListener("keydown", event => {
    const size = (event.shiftKey ? 5 : 1) * view().half / 40;
    const moves = {ArrowLeft: [-size, 0], ArrowRight: [size, 0], ArrowUp: [0, size], ArrowDown: [0, -size]};
    if (event.key in moves) movePoint(state.point.map((value, k) => value + moves[event.key][k]));
    else if (event.key === "Home") toMean();
    else return;
    event.preventDefault();
  });
}

function toMean() {
  state.follows = true;
  soon();
}

function drawAgain() {
  const normal = () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
  state.eps = [normal(), normal()];
  state.noise = state.noise.map(Math.random);
  if (state.found) { drawPictures(); drawPoint(); }
}

function unpress() {
  document.querySelectorAll("[data-preset]").forEach(button => button.setAttribute("aria-pressed", "false"));
}

function choose(name) {
  state.strokes = structuredClone(PRESETS[name]);
  state.follows = true;
  document.querySelectorAll("[data-preset]").forEach(
    button => button.setAttribute("aria-pressed", String(button.dataset.preset === name)));
  update(0);
}

document.addEventListener("click", event => {
  const name = event.target.closest("[data-preset]")?.dataset.preset;
  if (name === undefined) return;
  choose(name);
  if (event.target.closest("[aria-labelledby=try-title]")) byId("close").scrollIntoView({block: "center"});
});
byId("clear").addEventListener("click", () => choose("empty"));
byId("undo").addEventListener("click", () => { unpress(); state.strokes.pop(); soon(); });
byId("again").addEventListener("click", drawAgain);
byId("to-mean").addEventListener("click", toMean);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => state.ready && drawMaps());

byId("bars").append(...data.histogram.counts.map(count => Object.assign(document.createElement("i"),
  {style: `height: ${100 * count / Math.max(...data.histogram.counts)}%`})));
drawAgain();
drawPad();
const progress = words => share => { byId("status").textContent = `${words}: ${Math.round(100 * share)} %`; };
(async () => {
  await inParts(prepareCoarse(), progress("The page gets ready. You can draw already"));
  mosaic = await inParts(makeMosaic());
  await inParts(warm());
  state.ready = true;
  byId("page").removeAttribute("aria-busy");
  if (state.strokes.length) update(); else choose("4");
  await inParts(prepareRest(), progress("The numbers marked ≈ become exact"));
  state.complete = true;
  update(0);
})();
window.vae = {encode, decode, measure, toMnist, presets: PRESETS, choose, times: () => times, state};

// Heat over a picture: one number per region, painted where the region lies.

const HOT = [225, 30, 20];
const BRIGHT = [255, 150, 0];

// layout: {grid, area} or {boxes}, in shares of the picture; values: one per region; low, peak: darkest and brightest
export function paint(canvas, layout, values, low, peak) {
  const brush = canvas.getContext("2d");
  brush.clearRect(0, 0, canvas.width, canvas.height);
  if (!layout) return;
  const levels = values.map((value) => Math.min(1, Math.max(0, (value - low) / Math.max(peak - low, 1e-12))) ** 0.8);
  if (layout.grid) grid(brush, canvas, layout, levels);
  else boxes(brush, canvas, layout, levels);
}

function colour(level) {
  const dark = 0.55 * (1 - level) ** 1.5;
  const glow = (0.55 * Math.max(0, level - 0.35)) / 0.65;
  const alpha = dark + glow;
  return [...HOT.map((hot, i) => ((hot + (BRIGHT[i] - hot) * level) * glow) / Math.max(alpha, 1e-6)), alpha * 255];
}

function grid(brush, canvas, layout, levels) {
  const [rows, columns] = layout.grid;
  const small = document.createElement("canvas");
  small.width = columns;
  small.height = rows;
  const pixels = new ImageData(columns, rows);
  levels.forEach((level, i) => pixels.data.set(colour(level), 4 * i));
  small.getContext("2d").putImageData(pixels, 0, 0);
  const [left, top, right, bottom] = layout.area;
  const [x, y] = [left * canvas.width, top * canvas.height];
  const [width, height] = [(right - left) * canvas.width, (bottom - top) * canvas.height];
  brush.fillStyle = `rgba(0, 0, 0, ${0.55})`; // what the model does not see
  brush.fillRect(0, 0, canvas.width, canvas.height);
  brush.clearRect(x, y, width, height);
  brush.imageSmoothingEnabled = true;
  brush.imageSmoothingQuality = "high";
  brush.drawImage(small, x, y, width, height);
}

function boxes(brush, canvas, layout, levels) {
  const place = (box) => [box[0] * canvas.width, box[1] * canvas.height,
    Math.max(1, (box[2] - box[0]) * canvas.width), Math.max(1, (box[3] - box[1]) * canvas.height)];
  brush.fillStyle = "rgba(0, 0, 0, 0.55)";
  brush.fillRect(0, 0, canvas.width, canvas.height);
  const order = levels.map((level, i) => [level, i]).sort((a, b) => a[0] - b[0]);
  for (const [level, i] of order) { // the strongest is painted last
    const box = place(layout.boxes[i]);
    const [r, g, b, a] = colour(level);
    brush.clearRect(...box);
    brush.fillStyle = `rgba(${r}, ${g}, ${b}, ${a / 255})`;
    brush.fillRect(...box);
  }
  brush.lineWidth = Math.max(2, canvas.width / 250);
  for (const [level, i] of order.slice(-3)) {
    brush.strokeStyle = `rgba(255, 150, 0, ${0.3 + 0.7 * level})`;
    brush.strokeRect(...place(layout.boxes[i]));
  }
}

// The regions that one word (or sentence) looks at, or that look at it.
export function ofWord(attention, word) {
  const { t2i, i2t } = attention.streams;
  const values = t2i ? t2i.weights[word] : i2t.weights.map((row) => row[word]);
  const even = t2i ? 1 / attention.regions : 1 / attention.words.length;
  return { values, low: 0, peak: Math.max(...values, 2 * even) };
}

// The whole query: the mean of the streams' maps, each from its lowest to its highest value.
export function ofAll(attention) {
  const maps = Object.values(attention.map).map((values) => {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    return values.map((value) => (value - low) / Math.max(high - low, 1e-12));
  });
  const values = maps[0].map((_, i) => maps.reduce((sum, map) => sum + map[i], 0) / maps.length);
  return { values, low: 0, peak: Math.max(...values) };
}

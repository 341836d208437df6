/* The rank slider of chapter 1: two pictures, each the sum of its k largest rank-one pieces.
   The pieces are in rank-slider-data.js. Where no script runs, the sentence in the page's
   .rank-slider stays, and the figure below it says the same. */
(() => {
  "use strict";
  const place = document.querySelector(".rank-slider");
  const data = window.RANK_SLIDER;
  if (!place || !data) return;

  const START = 16;
  const CAPTIONS = { photograph: "Photograph", shuffled: "Shuffled" };
  const { rows, columns } = data;
  const all = rows * columns, breakEven = Math.floor(all / (rows + columns));
  const { make, draw } = window.pageParts;
  const BAR = 1.5, HEIGHT = 44, FLOOR = 1.5, TOP = 4.1; // log10

  const percent = share => `${(100 * share).toFixed(1)}%`;
  const number = n => n.toLocaleString("en-GB");

  class Picture {
    constructor({ name, values, scale, pieces }) {
      this.name = CAPTIONS[name];
      this.scale = scale;
      this.pieces = Int8Array.from(atob(pieces), c => c.charCodeAt(0)); // 255 becomes -1
      const squares = values.map(v => v * v), total = squares.reduce((a, b) => a + b);
      let sum = 0;
      this.kept = squares.map(s => (sum += s) / total);
      this.sum = new Float64Array(all).fill(data.mean);
      this.rank = 0;
      this.canvas = make("canvas", { width: columns, height: rows, role: "img" });
      this.pixels = new ImageData(columns, rows);
      this.pixels.data.fill(255);
      this.caption = make("figcaption");
      this.figure = make("figure", {}, this.canvas, this.spectrum(values), this.caption);
    }

    spectrum(values) {
      const width = BAR * values.length;
      const svg = draw("svg", { viewBox: `0 0 ${width} ${HEIGHT + 1}`, "aria-hidden": "true" });
      this.bars = values.map((value, i) => {
        const tall = Math.max(0.5, HEIGHT * (Math.log10(value) - FLOOR) / (TOP - FLOOR));
        return draw("rect", { x: BAR * i, y: HEIGHT - tall, width: BAR - 0.3, height: tall }, svg);
      });
      const x = BAR * breakEven;
      draw("line", { x1: x, x2: x, y1: 0, y2: HEIGHT }, svg);
      draw("text", { x: x + 2, y: 8 }, svg, `break-even: ${breakEven}`);
      return svg;
    }

    add(piece, sign) {
      const start = piece * (rows + columns), v = start + rows;
      for (let i = 0, at = 0; i < rows; i++) {
        const factor = sign * this.scale[piece] * this.pieces[start + i];
        for (let j = 0; j < columns; j++, at++) this.sum[at] += factor * this.pieces[v + j];
      }
    }

    show(rank) {
      while (this.rank < rank) this.add(this.rank++, 1);
      while (this.rank > rank) this.add(--this.rank, -1);
      for (let at = 0; at < all; at++) this.pixels.data.fill(this.sum[at], 4 * at, 4 * at + 3);
      this.canvas.getContext("2d").putImageData(this.pixels, 0, 0);
      this.canvas.setAttribute("aria-label", `${this.name}, rebuilt at rank ${rank}`);
      this.caption.textContent = `${this.name}: ${percent(this.kept[rank - 1])} of energy`;
      this.bars.forEach((bar, i) => bar.classList.toggle("kept", i < rank));
    }
  }

  const pictures = data.pictures.map(entry => new Picture(entry));
  const input = make("input", { type: "range", id: "rank-slider-input", min: 1, max: rows, step: 1, value: START });
  const output = make("output", { for: "rank-slider-input" });
  const label = make("label", { for: "rank-slider-input" }, "Rank: how many pieces are kept");

  function update() {
    const rank = Number(input.value), cost = rank * (rows + columns);
    pictures.forEach(picture => picture.show(rank));
    const verdict = cost <= all ? percent(cost / all) + " of" : "more than";
    output.textContent = `Rank ${rank} of ${rows}: ${number(cost)} numbers, ${verdict} a picture's own ${number(all)}.`;
  }

  input.addEventListener("input", update);
  place.replaceChildren(label, input, output, make("div", { class: "rank-slider-pictures" }, ...pictures.map(p => p.figure)));
  update();
})();

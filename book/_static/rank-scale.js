/* The picture of chapter 12: pick a setting of the sweep, and another to compare it with.
   All figures stand in the page, in the .rank-scale box that the chapter's cell wrote from
   the run records. Where no script runs, the sentence in that box stays, and the figure
   below it shows the same runs. */
(() => {
  "use strict";
  const place = document.querySelector(".rank-scale");
  if (!place) return;

  const { backbone, settings, gaps } = JSON.parse(place.dataset.runs);
  const { make, draw } = window.pageParts;
  const WIDTH = 460, HEIGHT = 270, LEFT = 46, BOTTOM = 226, STEP = 96;
  const unique = values => [...new Set(values)];
  const layers = unique(settings.map(s => s.layers)), scales = unique(settings.map(s => s.scale));
  const ranksOf = where => unique(settings.filter(s => s.layers === where).map(s => s.rank));
  const number = value => value.toFixed(2).replace("-", "\u2212");
  const ends = ([mean, low, high], unit) => `${number(mean)} ${unit} [${number(low)}, ${number(high)}]`;
  const name = s => `${s.layers}, rank ${s.rank}, scale ${s.scale}`;
  const turned = verdict => verdict.replace(/^(better|worse)/, word => word === "better" ? "worse" : "better");

  function select(id, text, values) {
    const control = make("select", { id }, ...values.map((value, i) => make("option", { value: i }, String(value))));
    return [make("div", {}, make("label", { for: id }, text), control), control];
  }

  // The plot: accuracy against rank on a logarithmic axis, the settings of a rank side by side.
  const floor = Math.floor(Math.min(...settings.map(s => s.figures[1]))), top = Math.ceil(Math.max(...settings.map(s => s.figures[2])));
  const y = value => 12 + (BOTTOM - 12) * (top - value) / (top - floor);
  const x = s => LEFT + 34 + STEP * Math.log2(s.rank) * 0.875 + 14 * (layers.indexOf(s.layers) * scales.length + scales.indexOf(s.scale) - 1.5);

  function plot() {
    const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": "true" }); // the sentence above it says what is chosen
    for (let value = floor; value <= top; value++) {
      draw("line", { class: "grid", x1: LEFT, x2: WIDTH, y1: y(value), y2: y(value) }, svg);
      draw("text", { x: LEFT - 6, y: y(value) + 5, "text-anchor": "end" }, svg, String(value));
    }
    for (const rank of unique(settings.map(s => s.rank))) {
      draw("text", { x: LEFT + 34 + STEP * Math.log2(rank) * 0.875, y: BOTTOM + 20, "text-anchor": "middle" }, svg, String(rank));
    }
    draw("text", { x: (LEFT + WIDTH) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, svg, "rank");
    const marks = settings.map(s => {
      const group = draw("g", {}, svg), at = x(s), [mean, low, high] = s.figures;
      draw("line", { x1: at, x2: at, y1: y(low), y2: y(high) }, group);
      const hollow = scales.indexOf(s.scale) ? "hollow" : "filled";
      if (layers.indexOf(s.layers)) draw("rect", { class: hollow, x: at - 5, y: y(mean) - 5, width: 10, height: 10 }, group);
      else draw("circle", { class: hollow, cx: at, cy: y(mean), r: 5.5 }, group);
      return group;
    });
    return [svg, marks];
  }

  const [svg, marks] = plot();
  const [whereBox, where] = select("rank-scale-layers", "Adapted layers", layers);
  const [scaleBox, scale] = select("rank-scale-scale", "Scale", scales);
  const [otherBox, other] = select("rank-scale-other", "Compare with", settings.map(name));
  const rank = make("input", { type: "range", id: "rank-scale-rank", min: 0, step: 1, value: 1 });
  const output = make("output", { for: "rank-scale-layers rank-scale-rank rank-scale-scale rank-scale-other" });
  rank.max = ranksOf(layers[0]).length - 1;

  function update() {
    const ranks = ranksOf(layers[where.value]);
    rank.max = ranks.length - 1; // a value beyond it moves to the end by itself
    const wanted = { layers: layers[where.value], rank: ranks[rank.value], scale: scales[scale.value] };
    const one = settings.findIndex(s => Object.entries(wanted).every(([key, value]) => s[key] === value));
    const two = Number(other.value), chosen = settings[one];
    rank.setAttribute("aria-valuetext", `rank ${chosen.rank}`);
    marks.forEach((mark, i) => mark.setAttribute("class", i === one ? "chosen" : i === two ? "other" : ""));
    svg.append(marks[two], marks[one]); // in front of the rest
    let said = `${name(chosen)}, at the rate ${chosen.rate}: ${ends(chosen.figures, "%")}. `;
    if (one === two) said += "Choose another setting to compare it with.";
    else {
      const [mean, low, high, verdict] = gaps[Math.max(one, two)][Math.min(one, two)];
      const figures = one > two ? [mean, low, high] : [-mean, -high, -low];
      said += `Minus ${name(settings[two])}: ${ends(figures, "points")}, ${one > two ? verdict : turned(verdict)}.`;
    }
    output.textContent = said[0].toUpperCase() + said.slice(1);
  }

  for (const control of [where, rank, scale, other]) control.addEventListener("input", update);
  place.replaceChildren(
    make("div", { class: "rank-scale-controls" }, whereBox, make("div", {}, make("label", { for: rank.id }, "Rank"), rank), scaleBox, otherBox),
    output, svg,
    make("p", {}, `${backbone}, test accuracy in % with intervals. Circles: ${layers[0]}; squares: ${layers[1]}. `
      + `Filled: scale ${scales[0]}; hollow: scale ${scales[1]}. Blue: the setting chosen; orange: the one it is compared with.`));
  update();
})();

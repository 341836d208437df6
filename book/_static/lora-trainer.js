/* Chapter 2's trainer: LoRA learns a small update in the page, a step at a time. What it computes is
   in lora-trainer-math.js. Where no script runs, the sentence in the page's .lora-trainer stays,
   and the outputs above it say the same. */
(() => {
  "use strict";
  const place = document.querySelector(".lora-trainer");
  const { LoraTrainer } = window, { N, VALUES, HIGHEST_RANK, singularValues, norm } = LoraTrainer ?? {};
  if (!place || !LoraTrainer) return;

  const { make, draw } = window.pageParts;
  const RATES = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5];
  const STARTS = { B: "B at zero (LoRA)", A: "A at zero", both: "both at zero", neither: "neither at zero" };
  const RUN = 100, SHOWN = 300, DECADES = 4; // steps a run takes, steps on the curve's axis, its powers of ten
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const percent = share => share >= 10 ? "more than 1,000 %" : `${(100 * share).toFixed(1)} %`;

  // The controls.
  function slider(id, text, attributes) {
    const input = make("input", { type: "range", id: `lora-trainer-${id}`, step: 1, ...attributes }), value = make("b");
    return { input, value, box: make("div", {}, make("label", { for: input.id }, text, ": ", value), input) };
  }
  const rank = slider("rank", "Rank r", { min: 1, max: HIGHEST_RANK, value: 2 });
  const alpha = slider("alpha", "Alpha", { min: 1, max: 32, value: 4 });
  const rate = slider("rate", "Learning rate", { min: 0, max: RATES.length - 1, value: RATES.indexOf(0.01) });
  const zero = make("select", { id: "lora-trainer-zero" }, ...Object.entries(STARTS).map(([value, text]) => make("option", { value }, text)));
  const zeroBox = make("div", {}, make("label", { for: zero.id }, "Start with"), zero);
  const [step, run, reset] = ["Step", "Run", "Reset"].map(text => make("button", { type: "button" }, text));
  const output = make("output", { "aria-live": "polite", for: [rank, alpha, rate].map(part => part.input.id).join(" ") });

  // The pictures, each a figure with a caption.
  const figure = (svg, caption) => make("figure", {}, svg, make("figcaption", {}, caption));
  const canvas = (width, height) => draw("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });

  function heatMap(caption) {
    const svg = canvas(N * 10, N * 10);
    const cells = Array.from({ length: N * N }, (_, at) => draw("rect", { x: 10 * (at % N), y: 10 * Math.floor(at / N), width: 10, height: 10 }, svg));
    const show = M => M.flat().forEach((value, at) => {
      cells[at].setAttribute("class", value < 0 ? "minus" : "plus");
      cells[at].setAttribute("fill-opacity", Math.min(1, Math.abs(value) / 1.2).toFixed(3));
    });
    return { show, figure: figure(svg, caption) };
  }

  function spectrum() {
    const svg = canvas(180, 120), height = value => Math.min(108, 22 * value);
    const bars = Array.from({ length: HIGHEST_RANK }, (_, k) => {
      const wanted = VALUES[k] ?? 0;
      const bar = draw("rect", { class: "learnt", x: 8 + 21 * k, width: 14 }, svg);
      draw("rect", { class: "wanted", x: 6 + 21 * k, width: 18, y: 112 - height(wanted), height: height(wanted) }, svg);
      return bar;
    });
    const show = M => singularValues(M).slice(0, HIGHEST_RANK).forEach((value, k) => {
      bars[k].setAttribute("y", 112 - height(value));
      bars[k].setAttribute("height", height(value));
    });
    return { show, figure: figure(svg, "Singular values: learnt (filled), wanted (outlines)") };
  }

  function curve() {
    const svg = canvas(180, 120), y = share => 10 + 100 * Math.min(DECADES, Math.max(-0.1, -Math.log10(share + 1e-12))) / DECADES;
    for (let power = 0; power <= DECADES; power += 2) {
      draw("line", { class: "grid", x1: 54, x2: 180, y1: y(10 ** -power), y2: y(10 ** -power) }, svg);
      draw("text", { x: 50, y: y(10 ** -power) + 4, "text-anchor": "end" }, svg, `${100 * 10 ** -power} %`);
    }
    const floor = draw("line", { class: "floor", x1: 54, x2: 180 }, svg), line = draw("polyline", {}, svg);
    const show = trainer => {
      const width = Math.max(SHOWN, trainer.left.length - 1);
      line.setAttribute("points", trainer.left.map((share, at) => `${54 + 126 * at / width},${y(share).toFixed(2)}`).join(" "));
      for (const end of ["y1", "y2"]) floor.setAttribute(end, y(trainer.floor()));
    };
    return { show, figure: figure(svg, "Error left, step by step; dashed: the least that this rank can reach") };
  }

  function gradientBars() {
    const svg = canvas(180, 70), parts = ["A", "B"].map((factor, at) => {
      draw("text", { x: 4, y: 26 + 30 * at }, svg, factor);
      return [factor, draw("rect", { class: `factor-${factor}`, x: 24, y: 12 + 30 * at, height: 18 }, svg), draw("text", { y: 26 + 30 * at }, svg)];
    });
    const show = gradients => parts.forEach(([factor, bar, text]) => {
      const long = norm(gradients[factor]), width = Math.min(100, 25 * Math.log10(1 + 100 * long));
      bar.setAttribute("width", width);
      text.setAttribute("x", 30 + width);
      text.textContent = long < 1e-9 ? "zero" : long.toPrecision(2);
    });
    return { show, figure: figure(svg, "Length of each factor's gradient at the next step") };
  }

  const [wanted, learnt, values, left, bars] = [heatMap("The update to learn: E"), heatMap("What LoRA has learnt: s\u2009BA"), spectrum(), curve(), gradientBars()];
  let trainer, until = 0;

  function show() {
    const gradients = trainer.gradients();
    learnt.show(trainer.delta());
    values.show(trainer.delta());
    left.show(trainer);
    bars.show(gradients);
    const stuck = !norm(gradients.A) && !norm(gradients.B);
    const state = trainer.exploded ? "the steps were too large, and the error has exploded. Lower the learning rate or alpha, and reset."
      : stuck ? `${percent(trainer.left.at(-1))} of the error is left, and both gradients are zero: nothing can train.`
      : `${percent(trainer.left.at(-1))} of the error is left; rank ${trainer.rank} can reach ${percent(trainer.floor())}.`;
    output.textContent = `Step ${trainer.step}, s = ${Number(trainer.s.toFixed(2))}: ${state}`;
    const running = until > trainer.step;
    output.setAttribute("aria-busy", running); // nobody wants every step of a run read out
    run.textContent = running ? "Pause" : "Run";
    step.disabled = run.disabled = trainer.exploded;
  }

  function label() {
    rank.value.textContent = rank.input.value;
    alpha.value.textContent = alpha.input.value;
    rate.value.textContent = RATES[rate.input.value];
    rate.input.setAttribute("aria-valuetext", RATES[rate.input.value]);
  }

  function begin() {
    label();
    until = 0;
    trainer = new LoraTrainer({ rank: Number(rank.input.value), alpha: Number(alpha.input.value), zero: zero.value });
    show();
  }

  const descend = () => trainer.descend(RATES[rate.input.value]);
  function animate() {
    if (trainer.exploded) until = 0;
    if (trainer.step < until) { descend(); requestAnimationFrame(animate); }
    show();
  }

  step.addEventListener("click", () => { until = 0; descend(); show(); });
  run.addEventListener("click", () => {
    if (until > trainer.step) { until = 0; return; }
    until = trainer.step + RUN;
    if (still.matches) { while (trainer.step < until && !trainer.exploded) descend(); show(); }
    else animate();
  });
  reset.addEventListener("click", begin);
  for (const control of [rank.input, zero]) control.addEventListener("input", begin); // another rank has other matrices
  alpha.input.addEventListener("input", () => { label(); trainer.rescale(Number(alpha.input.value)); show(); });
  rate.input.addEventListener("input", label);

  wanted.show(new LoraTrainer({ rank: 1, alpha: 1, zero: "B" }).E);
  place.replaceChildren(
    make("div", { class: "lora-trainer-controls" }, rank.box, alpha.box, rate.box, zeroBox),
    make("div", { class: "lora-trainer-buttons" }, step, run, reset), output,
    make("div", { class: "lora-trainer-pictures" }, ...[wanted, learnt, values, left, bars].map(part => part.figure)));
  begin();
})();

/* What chapter 2's trainer computes: LoRA on a matrix of zeros, by plain gradient descent.
   y = x W' + s (x A') B' with W = 0, and for inputs one entry at a time of 1, x = I, the loss is
   L = |s B A - E|^2, summed over all entries, where E is the update to be learnt. So with
   D = 2 (s B A - E) the gradients are dL/dB = s D A' and dL/dA = s B' D, as in the chapter.
   Matrices are arrays of rows. Nothing here touches the page, so that tests can run it. */
(() => {
  "use strict";
  const N = 12; // features in and out
  const VALUES = [4, 3, 2, 1]; // the singular values of E
  const HIGHEST_RANK = 8, EXPLODED = 1e9;

  const matrix = (rows, columns, entry) => Array.from({ length: rows }, (_, i) => Array.from({ length: columns }, (_, j) => entry(i, j)));
  const transpose = M => matrix(M[0].length, M.length, (i, j) => M[j][i]);
  const scale = (M, by) => M.map(row => row.map(v => by * v));
  const minus = (M, P) => M.map((row, i) => row.map((v, j) => v - P[i][j]));
  const dot = (u, v) => u.reduce((sum, value, i) => sum + value * v[i], 0);
  const product = (M, P) => { const columns = transpose(P); return M.map(row => columns.map(column => dot(row, column))); };
  const energy = M => M.reduce((sum, row) => sum + dot(row, row), 0);

  // Waves are orthogonal to one another, so E's pieces are waves and the eye can tell them apart.
  const wave = (k, i) => Math.sqrt((k ? 2 : 1) / N) * Math.cos(Math.PI * k * (2 * i + 1) / (2 * N));
  const update = () => matrix(N, N, (i, j) => VALUES.reduce((sum, value, k) => sum + value * wave(k + 1, i) * wave(4 - k, j), 0));

  // The same numbers at each start: the generator "mulberry32", between -bound and bound.
  function generator(bound, seed = 7) {
    return () => {
      seed = (seed + 0x6D2B79F5) | 0;
      let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return bound * (2 * ((t ^ (t >>> 14)) >>> 0) / 4294967296 - 1);
    };
  }

  // Singular values by Jacobi's method: turn pairs of columns until all are orthogonal; their lengths are left.
  function singularValues(M) {
    const columns = transpose(M);
    for (let sweep = 0, turned = true; turned && sweep < 40; sweep++) {
      turned = false;
      for (let p = 0; p < columns.length; p++) {
        for (let q = p + 1; q < columns.length; q++) {
          const [u, v] = [columns[p], columns[q]], a = dot(u, u), b = dot(v, v), c = dot(u, v);
          if (Math.abs(c) <= 1e-13 * Math.sqrt(a * b)) continue;
          turned = true;
          const zeta = (b - a) / (2 * c), t = (zeta < 0 ? -1 : 1) / (Math.abs(zeta) + Math.hypot(1, zeta));
          const cos = 1 / Math.hypot(1, t), sin = cos * t;
          columns[p] = u.map((value, i) => cos * value - sin * v[i]);
          columns[q] = u.map((value, i) => sin * value + cos * v[i]);
        }
      }
    }
    return columns.map(column => Math.sqrt(dot(column, column))).sort((x, y) => y - x);
  }

  class LoraTrainer {
    /* zero says which factor starts at zero: "B" as in LoRA, "A", "both" or "neither". */
    constructor({ rank, alpha, zero }) {
      const random = generator(1 / Math.sqrt(N)); // the bound of nn.Linear's own initialisation
      const filled = (rows, columns, factor) => matrix(rows, columns, zero === factor || zero === "both" ? () => 0 : random);
      Object.assign(this, { rank, E: update(), A: filled(rank, N, "A"), B: filled(N, rank, "B"), step: 0, exploded: false });
      this.rescale(alpha);
      this.left = [this.errorLeft()];
    }

    rescale(alpha) { this.s = alpha / this.rank; }
    delta() { return scale(product(this.B, this.A), this.s); }
    loss() { return energy(minus(this.delta(), this.E)); }
    errorLeft() { return this.loss() / energy(this.E); }
    floor() { return VALUES.slice(this.rank).reduce((sum, v) => sum + v * v, 0) / energy(this.E); }

    gradients() {
      const D = scale(minus(this.delta(), this.E), 2);
      return { A: scale(product(transpose(this.B), D), this.s), B: scale(product(D, transpose(this.A)), this.s) };
    }

    descend(rate) {
      if (this.exploded) return;
      const { A, B } = this.gradients();
      this.A = minus(this.A, scale(A, rate));
      this.B = minus(this.B, scale(B, rate));
      this.step += 1;
      const left = this.errorLeft();
      this.exploded = !(left < EXPLODED);
      if (!this.exploded) this.left.push(left);
    }
  }

  window.LoraTrainer = Object.assign(LoraTrainer, { N, VALUES, HIGHEST_RANK, singularValues, norm: M => Math.sqrt(energy(M)) });
})();

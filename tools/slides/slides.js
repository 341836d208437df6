/* Start the deck: formulas first, and a slide that is too full gets smaller letters. */
Reveal.initialize({ width: 1280, height: 720, margin: 0.02, center: false, hash: true, transition: "none", slideNumber: "c/t" });
const full = slide => slide.scrollHeight > slide.clientHeight || slide.scrollWidth > slide.clientWidth + 1;
const fit = slide => {
  for (let size = 0.95; full(slide) && size > 0.6; size -= 0.05) slide.style.setProperty("--fit", size.toFixed(2));
};
MathJax.startup.promise.then(() => {
  Reveal.on("slidechanged", event => fit(event.currentSlide));
  fit(Reveal.getCurrentSlide());
  document.documentElement.dataset.ready = "";
});

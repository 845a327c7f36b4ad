/* Without a mathematical font, which most phones lack, browsers leave subscripts on the line of their letter. */
document.addEventListener("DOMContentLoaded", () => {
  if (!document.querySelector("math")) return;
  const probe = document.createElement("div");
  probe.innerHTML = "<math><msub><mi>M</mi><mi>M</mi></msub></math>";
  document.body.append(probe);
  const [letter, below] = [...probe.querySelectorAll("mi")].map((one) => one.getBoundingClientRect().bottom);
  probe.remove();
  document.documentElement.classList.toggle("no-math-font", below - letter < 1);
});

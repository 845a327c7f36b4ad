// A picture that says where it was clicked, as shares of its width and height from its upper left corner.

function render({ model, el }) {
  const picture = document.createElement("img");
  picture.style.maxWidth = "100%";
  picture.style.cursor = "crosshair";
  picture.draggable = false;
  el.appendChild(picture);

  let address = null;
  const show = () => {
    const before = address;
    address = URL.createObjectURL(new Blob([model.get("value")], { type: "image/png" }));
    picture.src = address;
    picture.alt = model.get("alt");
    if (before !== null) {
      URL.revokeObjectURL(before);
    }
  };
  const click = (event) => {
    const box = picture.getBoundingClientRect();
    model.send({ x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height });
  };

  model.on("change:value", show);
  model.on("change:alt", show);
  picture.addEventListener("click", click);
  show();

  return () => {
    model.off("change:value", show);
    model.off("change:alt", show);
    URL.revokeObjectURL(address);
  };
}

export default { render };

// A line for each query: the image, then its neighbours; frames say whether classes agree.
function neighbours(root, data) {
  for (const { row, near } of data.rows) {
    const line = element("div", "line"), others = element("div", "near");
    const own = IMAGES.of[row][2];
    for (const [other, value] of near) {
      const found = picture(other, data.measure + ": " + number(value, 3));
      const label = IMAGES.of[other][2];
      if (own >= 0 && label >= 0) found.classList.add(own === label ? "same" : "other");
      others.append(found);
    }
    line.append(picture(row), others);
    root.append(line);
  }
}

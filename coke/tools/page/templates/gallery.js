// Clusters of the heads: sorted, filtered by class, so many at a time.
function gallery(root, data) {
  const AT_ONCE = 12;
  const measure = data.metric === "cosine" ? "mean cosine" : "mean distance";
  // By compactness, the most compact first: of cosines the largest, of distances the smallest.
  const compact = data.metric === "cosine" ? -1 : 1;
  const orders = [
    ["size-", "size, largest first", (c) => -c.size], ["size+", "size, smallest first", (c) => c.size],
    ["compact-", "compactness, tightest first", (c) => compact * c.compactness],
    ["compact+", "compactness, loosest first", (c) => -compact * c.compactness],
    ["number", "number", (c) => c.number]];
  if (data.classes) orders.splice(2, 0,
    ["purity-", "purity, purest first", (c) => c.purity === null ? 2 : -c.purity],
    ["purity+", "purity, least pure first", (c) => c.purity === null ? 2 : c.purity]);
  let head = data.heads[0], order = orders[0], first = 0, wanted = "";

  const controls = element("div", "controls"), status = element("span", "status");
  if (data.heads.length > 1) controls.append(choice("Head", data.heads.map((h, i) => [i, h.name]),
    (value) => { head = data.heads[value]; first = 0; draw(); }));
  controls.append(choice("Sorted by", orders.map(([id, text]) => [id, text]),
    (value) => { order = orders.find(([id]) => id === value); first = 0; draw(); }));
  if (data.classes) {
    const label = element("label", "", "Class "), input = element("input");
    input.type = "search"; input.size = 14; input.placeholder = "most frequent";
    input.addEventListener("input", () => { wanted = input.value.toLowerCase(); first = 0; draw(); });
    label.append(input);
    controls.append(label);
  }
  const back = element("button", "", "‹ back"), next = element("button", "", "next ›");
  back.type = next.type = "button";
  back.addEventListener("click", () => { first -= AT_ONCE; draw(); });
  next.addEventListener("click", () => { first += AT_ONCE; draw(); });
  controls.append(back, next, status);
  const note = element("p", "note"), cards = element("div", "cards");
  root.append(controls, note, cards);

  function draw() {
    const found = head.clusters
      .filter((c) => !wanted || (c.classes.length && className(c.classes[0][0]).toLowerCase().includes(wanted)))
      .sort((a, b) => order[2](a) - order[2](b) || a.number - b.number);
    const last = Math.min(first + AT_ONCE, found.length);
    status.textContent = found.length ? "clusters " + (first + 1) + " to " + last + " of " + count(found.length)
      : "no cluster";
    note.textContent = head.name + ": " + head.note;
    back.disabled = first === 0;
    next.disabled = last >= found.length;
    cards.replaceChildren(...found.slice(first, last).map(card));
  }

  function card(c) {
    const found = element("article", "cluster"), header = element("header");
    header.append(element("b", "", "Cluster " + c.number),
      element("span", "", count(c.size) + (c.size === 1 ? " image" : " images")));
    if (c.classes.length) header.append(element("span", "",
      c.classes.map(([label, share]) => percent(share) + " " + className(label)).join(", ")));
    header.append(element("span", "", measure + " " + number(c.compactness, 3)));
    const strips = element("div", "strips");
    const near = data.metric === "cosine" ? "cosine to the center: " : "distance to the center: ";
    strip(strips, "nearest to the center", c.nearest.map(([row, value]) => picture(row, near + number(value, 3))));
    strip(strips, "borderline", c.borderline.map(([row, margin, other]) => picture(row,
      margin < 0 ? "nearer to cluster " + other + " by " + number(-margin, 3) + ", kept here by the size constraint"
        : "next is cluster " + other + ", farther by " + number(margin, 3))));
    strip(strips, "random", c.random.map((row) => picture(row)));
    found.append(header, strips);
    return found;
  }

  function strip(into, name, pictures) {
    if (!pictures.length) return;
    const found = element("div", "strip");
    found.append(element("span", "", name), ...pictures);
    into.append(found);
  }

  draw();
}

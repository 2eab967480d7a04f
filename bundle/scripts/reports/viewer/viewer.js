// Two panes of NiiVue with one cursor, one contrast and one zoom. Each pane shows an image of one series, and a map over it.
"use strict";
(async () => {
  const element = (id) => document.getElementById(id);
  if (!document.createElement("canvas").getContext("webgl2")) return;  // the still pictures stay
  document.body.classList.replace("no-webgl", "loading");
  element("stills").open = false;
  const sets = JSON.parse(element("volumes").textContent);
  const names = Object.keys(sets);
  let set = sets[names[0]];
  const shown = [set.titles.indexOf("interpolation"), set.titles.indexOf("super-resolution")];
  const drag = niivue.DRAG_MODE;
  const colours = {  // inferno; NiiVue's own is half transparent
    R: [0, 66, 147, 221, 252, 252], G: [0, 10, 38, 81, 165, 255], B: [4, 104, 103, 58, 10, 164],
    A: [255, 255, 255, 255, 255, 255], I: [0, 51, 102, 153, 204, 255],
  };
  const panes = [];
  for (const index of [0, 1]) {
    const pane = new niivue.Niivue({
      logLevel: "error", loadingText: "", dragAndDropEnabled: false, isRadiologicalConvention: true, sagittalNoseLeft: true,
      multiplanarLayout: 3, multiplanarShowRender: 0, crosshairColor: [1, 0.75, 0.2, 0.9], crosshairWidth: 0.35, crosshairWidthUnit: "mm", crosshairGap: 8,
      scrollRequiresFocus: true, backColor: [0, 0, 0, 1],
      mouseEventConfig: {
        leftButton: { primary: drag.crosshair, withShift: drag.pan }, rightButton: drag.windowing, centerButton: drag.pan,
      },
    });
    pane.addColormap("map", colours);
    const canvas = element(`pane-${index}`);
    await pane.attachToCanvas(canvas, true);
    canvas.addEventListener("pointerdown", () => canvas.focus({ preventScroll: true }));
    panes.push(pane);
  }
  panes.forEach((pane, index) => {
    pane.broadcastTo([panes[1 - index]], { "2d": true });
    pane.onLocationChange = describe;
    pane.onIntensityChange = (image) => {
      setWindow(image.cal_min, image.cal_max);
      panes[1 - index].updateGLVolume();
    };
  });

  function refresh() {
    const map = set.legend[element("map").value];
    panes.forEach((pane, index) => {
      const [image, maps] = pane.volumes;
      const title = set.titles[shown[index]];
      image.frame4D = shown[index];
      const covered = map && title in map.frames;
      maps.frame4D = covered ? map.frames[title] : 0;
      maps.opacity = covered ? Number(element("strength").value) : 0;
      pane.updateGLVolume();
      element(`caption-${index}`).textContent = title + (covered ? ` with ${map.title}` : "");
    });
    element("legend").style.display = map ? "flex" : "none";
    if (map) element("legend-end").textContent = `${map.high.toPrecision(2)} % of white`;
    element("before").value = shown[0];
    element("after").value = shown[1];
    describe();
  }

  function describe() {
    const cursor = place(panes[0]);
    const letters = cursor.map((mm, axis) => `${"LPI"[axis]}${"RAS"[axis]}`[mm < 0 ? 0 : 1] + " " + Math.abs(mm).toFixed(1));
    const values = panes.map((pane, index) => `${set.titles[shown[index]]} ${value(pane, 0).toPrecision(4)}`);
    const map = set.legend[element("map").value];
    panes.forEach((pane, index) => {
      if (map && set.titles[shown[index]] in map.frames)
        values.push(`${map.title} of ${set.titles[shown[index]]} ${(value(pane, 1) * map.high / 255).toPrecision(2)} %`);
    });
    element("place").textContent = `${letters.join("  ")} mm    ${values.join("    ")}`;
    if (element("cursor")) element("cursor").textContent = `[${cursor.map((mm) => mm.toFixed(1)).join(",")}]`;
  }

  function place(pane) {
    return Array.from(pane.frac2mm(pane.scene.crosshairPos)).slice(0, 3);
  }

  function value(pane, layer) {
    const image = pane.volumes[layer];
    const voxel = image.mm2vox(place(pane));
    return image.getValue(voxel[0], voxel[1], voxel[2], image.frame4D);
  }

  function setWindow(low, high) {
    const [first, last] = set.range;
    for (const pane of panes) {
      pane.volumes[0].cal_min = low;
      pane.volumes[0].cal_max = Math.max(high, low + (last - first) / 1000);
    }
    element("black").value = 1000 * (low - first) / (last - first);
    element("white").value = 1000 * (high - first) / (last - first);
  }

  function fromSliders() {
    const [first, last] = set.range;
    const [low, high] = ["black", "white"].map((id) => first + element(id).value / 1000 * (last - first));
    setWindow(low, high);
    for (const pane of panes) pane.updateGLVolume();
  }

  function zoom() {
    const factor = Number(element("zoom").value);
    const [x, y, z] = place(panes[0]);
    const share = 1 - 1 / factor;
    const middle = panes[0].frac2mm([0.5, 0.5, 0.5]);
    for (const pane of panes)
      pane.setPan2Dxyzmm([(middle[0] - x) * share, (middle[1] - y) * share, (middle[2] - z) * share, factor]);
  }

  async function show(name) {
    set = sets[name];
    for (const pane of panes) {
      while (pane.volumes.length) pane.removeVolume(pane.volumes[0]);
      for (const [file, colormap] of [[set.images, "gray"], [set.maps, "map"]]) {
        const volume = await niivue.NVImage.loadFromBase64({ base64: file, name: "series.nii.gz", colormap });
        pane.addVolume(volume);
      }
      subtract(...pane.volumes);
      pane.volumes[1].cal_min = 0;
      pane.volumes[1].cal_max = 255;
    }
    reset();
  }

  // fills the places of the differences; NiiVue leaves out voxels of level 0
  function subtract(image, maps) {
    const size = image.img.length / set.titles.length;
    const frame = (title) => image.img.subarray(set.titles.indexOf(title) * size).subarray(0, size);
    for (const map of set.legend)
      for (const [title, other] of Object.entries(map.minus)) {
        const [a, b, start] = [frame(title), frame(other), map.frames[title] * size];
        for (let i = 0; i < size; i++) maps.img[start + i] = Math.max(1, Math.min(255, Math.abs(a[i] - b[i]) * 255 / map.levels));
      }
  }

  function reset() {
    element("zoom").value = 1;
    zoom();
    for (const pane of panes) pane.scene.crosshairPos = pane.mm2frac(set.cursor);
    setWindow(...set.window);
    refresh();
  }

  function swap() {
    shown.reverse();
    refresh();
  }

  const option = (text, value) => new Option(text, value);
  for (const id of ["before", "after"]) element(id).append(...set.titles.map(option));
  element("map").append(option("none", -1), ...set.legend.map((map, index) => option(map.title, index)));
  element("part").append(...names.map((name) => option(name, name)));
  element("part-label").hidden = names.length < 2;
  element("switch").addEventListener("click", swap);
  element("reset").addEventListener("click", reset);
  ["before", "after"].forEach((id, index) =>
    element(id).addEventListener("change", () => { shown[index] = Number(element(id).value); refresh(); }));
  for (const id of ["map", "strength"]) element(id).addEventListener("input", refresh);
  for (const id of ["black", "white"]) element(id).addEventListener("input", fromSliders);
  element("zoom").addEventListener("input", zoom);
  element("part").addEventListener("change", () => show(element("part").value));
  element("planes").addEventListener("change", () => {
    const type = Number(element("planes").value);
    element("panes").classList.toggle("single", type !== 3);
    for (const pane of panes) pane.setSliceType(type);
  });
  document.addEventListener("keydown", (event) => {
    if (event.code !== "Space" || /SELECT|BUTTON|INPUT/.test(event.target.tagName)) return;
    event.preventDefault();
    swap();
  });
  await show(names[0]);
  document.body.classList.remove("loading");
  window.viewer = { panes, place, value };
  document.body.dataset.ready = "true";
})().catch((error) => {
  document.body.classList.remove("loading");
  document.body.classList.add("no-webgl");
  document.getElementById("stills").open = true;
  console.error(error);
});

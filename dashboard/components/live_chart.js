// What Streamlit carries to the page: small, because it is sent again at every rerun. The modules are loaded once,
// from the app's own static files, and asked for afresh so that an update of the platform is never half in a cache.
const boards = new WeakMap();

async function load(folder, files) {
  await Promise.all(files.map((file) => fetch(`${folder}/${file}`, { cache: "no-cache" })));
  return import(`${folder}/board.js`);
}

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".board");
  const mounted = boards.get(parentElement);
  if (mounted) {
    mounted.config = data;
    mounted.board?.update(data);
  } else {
    const entry = { config: data };
    boards.set(parentElement, entry);
    const folder = new URL("app/static/live_chart", document.baseURI).href;
    load(folder, data.files).then(
      ({ Board }) => {
        if (boards.get(parentElement) !== entry) return;
        const tell = {
          moved: (state) => setTriggerValue("state", state),
          lapsed: () => setTriggerValue("lapsed", Date.now()),
        };
        entry.board = new Board(root, entry.config, tell);
      },
      (error) => {
        root.textContent = `The charts could not be loaded: ${error.message}. Reload the page.`;
        root.className = "board failed";
      },
    );
  }
  return () => {
    boards.get(parentElement)?.board?.close();
    boards.delete(parentElement);
  };
}

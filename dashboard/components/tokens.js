// What Streamlit carries to the page: small, because it is sent again at every rerun. It loads the view that the data
// names from the app's own static files and hands it what is new.
const views = new WeakMap();

async function load(folder, data) {
  const paths = data.files.map((file) => `${folder}/${file}`);
  await Promise.all(paths.map((path) => fetch(path, { cache: "no-cache" })));
  return import(`${folder}/tokens/${data.view}.js`);
}

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".view");
  const mounted = views.get(parentElement);
  if (mounted) {
    mounted.data = data;
    mounted.view?.update(data);
  } else {
    const entry = { data };
    views.set(parentElement, entry);
    load(new URL("app/static", document.baseURI).href, data).then(
      ({ View }) => {
        if (views.get(parentElement) === entry) entry.view = new View(root, entry.data, (what) => setTriggerValue("open", what));
      },
      (error) => (root.textContent = `This part could not be loaded: ${error.message}. Reload the page.`),
    );
  }
  return () => {
    views.get(parentElement)?.view?.close();
    views.delete(parentElement);
  };
}

// What Streamlit carries to the page: small, because it is sent again at every rerun. It loads the view that the data
// names from the app's own static files and hands it what is new.
const views = new WeakMap();
const loads = new Map(); // by view: a page may show many of one; what could not be loaded is tried again by the next

function load(folder, { view, files }) {
  if (!loads.has(view)) {
    const fresh = files.map((file) => fetch(`${folder}/${file}`, { cache: "no-cache" }));
    loads.set(view, Promise.all(fresh).then(() => import(`${folder}/tokens/${view}.js`)));
    loads.get(view).catch(() => loads.delete(view));
  }
  return loads.get(view);
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

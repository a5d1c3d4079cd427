"""The view into a run: a Streamlit guest that speaks HTTP through the client."""

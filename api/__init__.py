"""The service and the record: the REST API and the database that holds what is true."""

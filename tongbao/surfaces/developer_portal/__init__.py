"""The developer portal: pages for whoever signed up to try the API in the sandbox."""

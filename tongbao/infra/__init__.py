"""The machine under the business: database, tasks, web, crypto, logs. It knows no payment."""

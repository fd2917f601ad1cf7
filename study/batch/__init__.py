"""The batch job: records from many databases, each of which answers slowly, in several ways."""

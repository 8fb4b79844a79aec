-- ATT&CK techniques of the alert of a response, as a JSON array; NULL: none.

ALTER TABLE responses ADD COLUMN mitre TEXT;

-- Fingerprint of the client certificate that stands for a key (SHA-256 of the certificate, in hexadecimal); NULL: the key has a
-- secret. It is shown and searched; what counts is `hash`, which is sealed and follows from it.
ALTER TABLE api_keys ADD COLUMN certificate TEXT;

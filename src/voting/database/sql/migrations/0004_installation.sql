-- Which installation this database belongs to: the id made here, and those that came with a restored backup or
-- `voting adopt`. Workers count only the votes of a broker that holds one of these ids, or none yet.

CREATE TABLE installation (
    id      uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    created timestamptz NOT NULL DEFAULT now()
);

INSERT INTO installation DEFAULT VALUES;

-- The database of commit 954ea8d, the last one before polls had a kind, a state and rounds, as pg_dump --inserts wrote it.
-- It was filled by that version: votes and revotes by its vote service and workers, `unchecked` and a dead letter as older
-- versions could leave them. Entry ids were then moved back by two years, so that they are in the past on every machine.
-- 954ea8d.tar.gz is the file that its `voting backup` made of the same database.
CREATE FUNCTION public.check_poll() RETURNS trigger
    LANGUAGE plpgsql
    AS $_$
DECLARE
    control CONSTANT text := '[\u0001-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]';
    fault text;
BEGIN
    fault := CASE
        WHEN NEW.question !~ '\S' OR length(NEW.question) > 200 OR NEW.question ~ control
            THEN 'the question must have 1 to 200 characters, and no line breaks or control characters'
        WHEN jsonb_typeof(NEW.options) <> 'array'
            THEN 'options must be a list of objects with the strings key and label'
        WHEN EXISTS (
            SELECT FROM jsonb_array_elements(NEW.options) AS option
            WHERE jsonb_typeof(option) <> 'object'
               OR jsonb_typeof(option -> 'key') IS DISTINCT FROM 'string'
               OR jsonb_typeof(option -> 'label') IS DISTINCT FROM 'string'
               OR jsonb_typeof(option -> 'retired') <> 'boolean')
            THEN 'options must be a list of objects with the strings key and label'
        WHEN EXISTS (
            SELECT FROM jsonb_array_elements(NEW.options) AS option
            WHERE option - '{key,label,retired}'::text[] <> '{}' OR option ->> 'key' !~ '^[a-z0-9]{1,8}$')
            THEN 'each key must be 1 to 8 of a-z and 0-9, and there must be nothing else than key and label'
        WHEN EXISTS (
            SELECT FROM jsonb_array_elements(NEW.options) AS option, LATERAL (SELECT option ->> 'label') AS shown (label)
            WHERE label !~ '\S' OR label ~ '^\s|\s$' OR length(label) > 200 OR label ~ control OR label IS NOT NFC NORMALIZED)
            THEN 'each label must have 1 to 200 characters in NFC, and no control characters or spaces around them'
        WHEN (SELECT count(*) NOT BETWEEN 2 AND 20 FROM jsonb_array_elements(NEW.options) AS option
              WHERE option -> 'retired' IS DISTINCT FROM 'true')
            THEN 'a poll must have 2 to 20 options'
        WHEN (SELECT count(DISTINCT option -> 'key') < count(*) FROM jsonb_array_elements(NEW.options) AS option)
            THEN 'two options have the same key'
        WHEN (SELECT count(DISTINCT casefold(normalize(option ->> 'label', NFKC) COLLATE pg_unicode_fast)) < count(*)
              FROM jsonb_array_elements(NEW.options) AS option)
            THEN 'two options have the same label, but for case'
        WHEN EXISTS (
            SELECT FROM tallies WHERE poll = NEW.slug AND votes > 0 AND choice NOT IN (
                SELECT option ->> 'key' FROM jsonb_array_elements(NEW.options) AS option))
            THEN 'an option that has votes must stay, with its key'
        WHEN EXISTS (SELECT FROM tallies WHERE poll = NEW.slug AND votes > 0) AND EXISTS (
            SELECT FROM jsonb_path_query(OLD.options, '$[*]') AS held, jsonb_array_elements(NEW.options) AS option
            WHERE held ->> 'key' <> option ->> 'key'
              AND casefold(normalize(held ->> 'label', NFKC) COLLATE pg_unicode_fast)
                = casefold(normalize(option ->> 'label', NFKC) COLLATE pg_unicode_fast))
            THEN 'a label must stay with its key, since the poll has votes'
        END;
    IF fault IS NOT NULL THEN
        RAISE EXCEPTION 'poll %: %', NEW.slug, fault USING ERRCODE = 'check_violation', TABLE = 'polls';
    END IF;
    RETURN NEW;
END
$_$;
CREATE TABLE public.dead_letters (
    entry_ms numeric(20,0) NOT NULL,
    entry_seq numeric(20,0) NOT NULL,
    reason text NOT NULL,
    fields text NOT NULL,
    arrived timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE public.installation (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    created timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE public.polls (
    slug text NOT NULL,
    question text NOT NULL,
    options jsonb NOT NULL,
    revision bigint DEFAULT 1 NOT NULL,
    entry_ms bigint DEFAULT 0 NOT NULL,
    entry_seq bigint DEFAULT 0 NOT NULL,
    created timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT polls_slug_check CHECK ((slug ~ '^[a-z0-9][a-z0-9-]{0,62}$'::text))
)
WITH (fillfactor='50');
CREATE TABLE public.schema_migrations (
    name text NOT NULL
);
CREATE TABLE public.tallies (
    poll text NOT NULL,
    choice text NOT NULL,
    votes bigint NOT NULL
)
WITH (fillfactor='50');
CREATE TABLE public.votes (
    poll text NOT NULL,
    voter bytea NOT NULL,
    choice text NOT NULL,
    entry_ms bigint NOT NULL,
    entry_seq bigint NOT NULL
)
WITH (fillfactor='90');
CREATE TABLE public.workers (
    name text NOT NULL,
    seen timestamp with time zone NOT NULL,
    lag bigint NOT NULL,
    pending bigint NOT NULL,
    oldest double precision NOT NULL,
    counted timestamp with time zone,
    stopped boolean DEFAULT false NOT NULL
)
WITH (fillfactor='50');
INSERT INTO public.dead_letters VALUES (1732740804087, 0, 'voter has 12 bytes, expected 16', 'poll=default, voter=\x00\\\t\n\x00\\\t\n\x00\\\t\n, choice=\xff', '2024-11-27 20:53:24.094235+00');
INSERT INTO public.installation VALUES ('9a658456-fc92-41be-a505-bf5bc2036d30', '2026-11-27 20:53:00.699092+00');
INSERT INTO public.polls VALUES ('empty', 'No votes yet?', '[{"key": "a", "label": "Yes"}, {"key": "b", "label": "No"}, {"key": "c", "label": "Gone", "retired": true}]', 1, 0, 0, '2026-11-27 20:53:21.08233+00');
INSERT INTO public.polls VALUES ('default', 'Cats or dogs?', '[{"key": "a", "label": "Cats"}, {"key": "b", "label": "Dogs"}]', 49, 1732740805731, 0, '2024-11-27 20:53:00.699092+00');
INSERT INTO public.polls VALUES ('lunch', 'What for lunch?', '[{"key": "a", "label": "Soup"}, {"key": "b", "label": "Brötchen"}, {"key": "c", "label": "Nothing"}]', 21, 1732740805733, 0, '2024-11-27 20:53:21.074125+00');
INSERT INTO public.polls VALUES ('unchecked', 'Line
break?', '[{"key": "long-key_1", "label": "Tab\there"}, {"key": "B", "label": "back\\slash"}]', 5, 1732740805423, 0, '2024-11-27 20:53:21.081353+00');
INSERT INTO public.schema_migrations VALUES ('0001_votes.sql');
INSERT INTO public.schema_migrations VALUES ('0002_polls.sql');
INSERT INTO public.schema_migrations VALUES ('0004_installation.sql');
INSERT INTO public.tallies VALUES ('unchecked', 'long-key_1', 4);
INSERT INTO public.tallies VALUES ('lunch', 'c', 6);
INSERT INTO public.tallies VALUES ('lunch', 'b', 7);
INSERT INTO public.tallies VALUES ('default', 'b', 18);
INSERT INTO public.tallies VALUES ('default', 'a', 22);
INSERT INTO public.tallies VALUES ('lunch', 'a', 7);
INSERT INTO public.votes VALUES ('default', '\x35a29736a0a00e99556841f978af7386', 'b', 1732740804261, 0);
INSERT INTO public.votes VALUES ('unchecked', '\x2d86acb8f246cc588e16abad5ceee642', 'long-key_1', 1732740804264, 0);
INSERT INTO public.votes VALUES ('default', '\xcf6f7c88229183722ce2caa4ee8adeb7', 'a', 1732740804312, 0);
INSERT INTO public.votes VALUES ('lunch', '\xa13a01dbb2649d53aa220c037f847329', 'b', 1732740804315, 0);
INSERT INTO public.votes VALUES ('default', '\x31df4f00627d40825c78606006279cda', 'b', 1732740804353, 0);
INSERT INTO public.votes VALUES ('default', '\x9ed2bc94635ac6699b3bcd437e6697f8', 'a', 1732740804379, 0);
INSERT INTO public.votes VALUES ('lunch', '\x825a1f2787a427f763b00fb0c17c670b', 'a', 1732740804382, 0);
INSERT INTO public.votes VALUES ('default', '\x2f1038c353e3bc2be861b953c92e12d7', 'a', 1732740804407, 0);
INSERT INTO public.votes VALUES ('default', '\x1ce8300a957ed9a2f98f3126e7c0d4bf', 'b', 1732740804433, 0);
INSERT INTO public.votes VALUES ('lunch', '\xb86026b5d6bdfe53a7bd2f196701e050', 'c', 1732740804443, 0);
INSERT INTO public.votes VALUES ('default', '\x0a126127251c9703200735c4360d37f9', 'a', 1732740804467, 0);
INSERT INTO public.votes VALUES ('default', '\x6ab1a02a8c27688763e54c8848cdab80', 'a', 1732740804499, 0);
INSERT INTO public.votes VALUES ('lunch', '\x48da66a49a1b8e80739e7ddfad3b6763', 'b', 1732740804502, 0);
INSERT INTO public.votes VALUES ('default', '\x5796ddaae13d2f69b1d86e7321bd0314', 'b', 1732740804525, 0);
INSERT INTO public.votes VALUES ('default', '\x92c3b50ddfb99e91801235d3a81164b1', 'a', 1732740804550, 0);
INSERT INTO public.votes VALUES ('lunch', '\xcaca683717424996de66cc92826cdcd5', 'a', 1732740804553, 0);
INSERT INTO public.votes VALUES ('default', '\x7a2353f427425c401e0866ad75163fb7', 'b', 1732740804595, 0);
INSERT INTO public.votes VALUES ('unchecked', '\xee3d1a70e8b6095d27fdb121ae8685ea', 'long-key_1', 1732740804597, 0);
INSERT INTO public.votes VALUES ('default', '\x74cfec0de4ad12183238d2656d9937fe', 'b', 1732740804634, 0);
INSERT INTO public.votes VALUES ('lunch', '\xc24f2b156758c397bdee09007c263478', 'c', 1732740804636, 0);
INSERT INTO public.votes VALUES ('default', '\x5b09cc3a4da4ec467e3c8b69fdecd9cc', 'a', 1732740804675, 0);
INSERT INTO public.votes VALUES ('default', '\x19cef637718a0fd015f91bd1c9f9b0b1', 'a', 1732740804716, 0);
INSERT INTO public.votes VALUES ('lunch', '\x69b078760ebdf90bf98fc6c5326cc949', 'b', 1732740804732, 0);
INSERT INTO public.votes VALUES ('default', '\x42f93ff48716aa64a13ee0ee44569206', 'b', 1732740804773, 0);
INSERT INTO public.votes VALUES ('default', '\x908ab614f911ed0cfe103b1e2535eb27', 'b', 1732740804817, 0);
INSERT INTO public.votes VALUES ('lunch', '\x39d48d13a61f01719bcbce3f7414a6c0', 'a', 1732740804819, 0);
INSERT INTO public.votes VALUES ('default', '\xb7ba7d6036f96f54765e594a1709a202', 'a', 1732740804861, 0);
INSERT INTO public.votes VALUES ('default', '\x9dbf075d925cc21870bc0d918b391a55', 'b', 1732740804901, 0);
INSERT INTO public.votes VALUES ('lunch', '\x036614e7d156c825fe69e557c1818688', 'c', 1732740804903, 0);
INSERT INTO public.votes VALUES ('default', '\xfe2e3e516be8fe2b471c7dc1ac7ca720', 'a', 1732740804942, 0);
INSERT INTO public.votes VALUES ('default', '\xb93a95b6bba2bf187ae8a9120ffd7124', 'a', 1732740804982, 0);
INSERT INTO public.votes VALUES ('lunch', '\x5cd99468bc46e8c56b8084297713b49d', 'b', 1732740804986, 0);
INSERT INTO public.votes VALUES ('default', '\xf57fae0ea44df15a950a9e0255ca1c99', 'b', 1732740805025, 0);
INSERT INTO public.votes VALUES ('unchecked', '\xe7618557eb68edaf843d54d4fa52f28b', 'long-key_1', 1732740805027, 0);
INSERT INTO public.votes VALUES ('default', '\xe8fa2d59df4679333ab3f8b67885b298', 'a', 1732740805061, 0);
INSERT INTO public.votes VALUES ('lunch', '\xcaf19fc81850385ec457ea0f36bf5b01', 'a', 1732740805063, 0);
INSERT INTO public.votes VALUES ('default', '\xa9c3c5cbfe5d7ee6411cbed513c99c49', 'a', 1732740805117, 0);
INSERT INTO public.votes VALUES ('lunch', '\x40d1b41615ab0d4ce3480a229771d0af', 'c', 1732740805154, 0);
INSERT INTO public.votes VALUES ('default', '\xc08378296a45869c998b99ac4cdcef8a', 'b', 1732740805151, 0);
INSERT INTO public.votes VALUES ('default', '\xcd8f238587f65e1e05502fec40fbfde6', 'a', 1732740805196, 0);
INSERT INTO public.votes VALUES ('default', '\xb5f6dde59c9660e20ae0a9adaccea941', 'b', 1732740805237, 0);
INSERT INTO public.votes VALUES ('lunch', '\x6d119d94740e48aac6c2666efc0d72ab', 'b', 1732740805239, 0);
INSERT INTO public.votes VALUES ('default', '\x8fa35d27ec45661d27f7773c6c673306', 'b', 1732740805271, 0);
INSERT INTO public.votes VALUES ('default', '\x903ca3e026650444759580203d5b140f', 'a', 1732740805311, 0);
INSERT INTO public.votes VALUES ('lunch', '\x9005ebc8db71268bf082e8f09435ee41', 'a', 1732740805315, 0);
INSERT INTO public.votes VALUES ('default', '\x78b7d44096034d15af893ee0fdcfbf23', 'a', 1732740805344, 0);
INSERT INTO public.votes VALUES ('default', '\x5e947913efa954d72d88b86ee787902e', 'b', 1732740805378, 0);
INSERT INTO public.votes VALUES ('lunch', '\x7a00a470960e90ea84808f13aec6983e', 'c', 1732740805388, 0);
INSERT INTO public.votes VALUES ('default', '\xaa11484e499966134944e0533aaf70ea', 'b', 1732740805421, 0);
INSERT INTO public.votes VALUES ('unchecked', '\x963f1d8e15a295ff2885b214fc41fed2', 'long-key_1', 1732740805423, 0);
INSERT INTO public.votes VALUES ('default', '\xa08b9290c9853e7a19ec329009d17a03', 'a', 1732740805446, 0);
INSERT INTO public.votes VALUES ('lunch', '\x391506bfcccd0e16b4bd96665d744029', 'b', 1732740805461, 0);
INSERT INTO public.votes VALUES ('default', '\x4b41e36752c99ddfff3063c61e3e1e73', 'b', 1732740805484, 0);
INSERT INTO public.votes VALUES ('default', '\xd62567f9ccfa3f4828eb98b1f4393f4d', 'a', 1732740805513, 0);
INSERT INTO public.votes VALUES ('lunch', '\x6af1197ab8c2c1bf620f475573b3efb5', 'a', 1732740805517, 0);
INSERT INTO public.votes VALUES ('default', '\xfa007dbb29e482c87313451a17aa5f30', 'a', 1732740805557, 0);
INSERT INTO public.votes VALUES ('default', '\x099c456278fd9709cfc3bca129b1b923', 'b', 1732740805595, 0);
INSERT INTO public.votes VALUES ('lunch', '\x85b442af5ec0c4051cc50fa68526e0ec', 'c', 1732740805598, 0);
INSERT INTO public.votes VALUES ('default', '\x624c0c2883fd5eec49cb707692d495ec', 'a', 1732740805630, 0);
INSERT INTO public.votes VALUES ('default', '\x1c71ff30eb6340b0238f3d324e41d9b0', 'a', 1732740805666, 0);
INSERT INTO public.votes VALUES ('lunch', '\xec5094dcca14c8885aef4524f37cea9e', 'b', 1732740805668, 0);
INSERT INTO public.votes VALUES ('default', '\x04fea878069ddbe9f3cff59e6cc931ad', 'b', 1732740805705, 0);
INSERT INTO public.votes VALUES ('default', '\xa8ba505328cd6444db523f8a7c9bd53b', 'a', 1732740805731, 0);
INSERT INTO public.votes VALUES ('lunch', '\x8cd4a5a6e0469b0e80eaec0041aeaae9', 'a', 1732740805733, 0);
INSERT INTO public.workers VALUES ('worker-2', '2026-11-27 20:53:57.799281+00', 0, 0, 0, '2026-11-27 20:53:25.978999+00', false);
INSERT INTO public.workers VALUES ('worker-1', '2026-11-27 20:53:57.875723+00', 0, 0, 0, '2026-11-27 20:53:26.070047+00', false);
ALTER TABLE ONLY public.dead_letters
    ADD CONSTRAINT dead_letters_pkey PRIMARY KEY (entry_ms, entry_seq);
ALTER TABLE ONLY public.installation
    ADD CONSTRAINT installation_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.polls
    ADD CONSTRAINT polls_pkey PRIMARY KEY (slug);
ALTER TABLE ONLY public.schema_migrations
    ADD CONSTRAINT schema_migrations_pkey PRIMARY KEY (name);
ALTER TABLE ONLY public.tallies
    ADD CONSTRAINT tallies_pkey PRIMARY KEY (poll, choice);
ALTER TABLE ONLY public.votes
    ADD CONSTRAINT votes_pkey PRIMARY KEY (poll, voter);
ALTER TABLE ONLY public.workers
    ADD CONSTRAINT workers_pkey PRIMARY KEY (name);
CREATE TRIGGER check_poll BEFORE INSERT OR UPDATE OF question, options ON public.polls FOR EACH ROW EXECUTE FUNCTION public.check_poll();
ALTER TABLE ONLY public.tallies
    ADD CONSTRAINT tallies_poll_fkey FOREIGN KEY (poll) REFERENCES public.polls(slug);

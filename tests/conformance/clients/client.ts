// The client that openapi-generator makes of openapi.yaml for TypeScript and axios, at work. It does what
// python_client.py does; `tests/it/generated_clients.rs` compiles and starts it.

import { readFileSync } from 'node:fs';
import { isAxiosError, type AxiosResponse } from 'axios';
import {
    ActionsApi, AgentsApi, AlertsApi, ApiKeysApi, AuditApi, CommandsApi, Configuration, EffectsApi, EventsApi, FeedsApi,
    ForwardersApi, HoldsApi, NodesApi, PoliciesApi, ProtectedApi, ResponsesApi, SecretsApi, UsersApi, WebhooksApi,
    type AlertsCreateRequest, type On, type OnDocument, type PolicyDocument, type Problem,
} from './made';

function given(name: string): string {
    const value = process.env[`RIPOSTE_CLIENT_${name}`];
    if (value === undefined) throw new Error(`RIPOSTE_CLIENT_${name} is not set`);
    return value;
}

const { lines, alerts, xml, parameters } = JSON.parse(readFileSync(given('GIVEN'), 'utf8')) as {
    lines: object[];
    alerts: (AlertsCreateRequest & object)[];
    xml: string;
    parameters: { name: string };
};
const configuration = new Configuration({ basePath: given('URL'), accessToken: given('KEY') });

const alertsApi = new AlertsApi(configuration);
const policiesApi = new PoliciesApi(configuration);
const responsesApi = new ResponsesApi(configuration);

function said<T>(response: AxiosResponse<T>, status: number): T {
    if (response.status !== status) throw new Error(`${response.status}: ${JSON.stringify(response.data)}`);
    return response.data;
}

// The generator knows one media type of a body: the other one is a header, and the body bytes.
async function sendLines() {
    const body = Buffer.from(lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
    const request = { secret: given('SECRET'), body, idempotencyKey: 'lines-ts' };
    const headers = { 'Content-Type': 'application/x-ndjson' };
    return said(await alertsApi.alertsIngest(request, { headers }), 202);
}

async function sendAlerts() {
    const bodies: [AlertsCreateRequest, string][] = [
        [alerts[0]!, 'one-ts'],
        [alerts as AlertsCreateRequest, 'all-ts'],
        [alerts as AlertsCreateRequest, 'all-ts'],
    ];
    const sent = [];
    for (const [alertsCreateRequest, idempotencyKey] of bodies) {
        sent.push(said(await alertsApi.alertsCreate({ alertsCreateRequest, idempotencyKey }), 202));
    }
    return sent;
}

async function importXml() {
    const body = new File([xml], 'ossec.conf', { type: 'application/xml' });
    return said(await policiesApi.policiesImport({ body }), 201).policies;
}

function kindOf(on: On): string {
    if (typeof on === 'string') return 'OnWord';
    return 'agents' in on ? 'OnAgents' : 'OnSelector';
}

async function makePolicies() {
    const kinds: Record<string, OnDocument> = {
        word: 'all',
        agents: { agents: ['web-01'] },
        selector: { labels: { env: ['prod'] } },
    };
    const read: Record<string, string> = {};
    for (const [kind, on] of Object.entries(kinds)) {
        const name = `ts-${kind}`;
        const policyDocument: PolicyDocument = {
            name, match: [{ rule_ids: ['5763'] }], respond: { action: 'log-only', on },
        };
        for (const idempotencyKey of [`policy-${name}`, `policy-${name}`]) {
            said(await policiesApi.policiesCreate({ policyDocument, idempotencyKey }), 201);
        }
        read[kind] = kindOf(said(await policiesApi.policiesFind({ name }), 200).respond.on);
    }
    return read;
}

async function respond() {
    const newManualResponse = { action: 'log-only', on: { agents: ['web-01'] }, reason: 'generated client' };
    const ids = [];
    for (const idempotencyKey of ['response-ts', 'response-ts']) {
        const made = said(await responsesApi.responsesCreate({ newManualResponse, idempotencyKey }), 201);
        ids.push('id' in made ? made.id : null);
    }
    return ids;
}

type Paged = { limit?: number; cursor?: string };
type Page = { items: object[]; next_cursor?: string | null };
type List = (page: Paged) => Promise<AxiosResponse<Page>>;

const paged: Record<string, List> = {
    agents_list: (page) => new AgentsApi(configuration).agentsList(page),
    agents_list_tokens: (page) => new AgentsApi(configuration).agentsListTokens(page),
    alerts_list: (page) => alertsApi.alertsList(page),
    alerts_rejected_list: (page) => alertsApi.alertsRejectedList(page),
    api_keys_list: (page) => new ApiKeysApi(configuration).apiKeysList(page),
    audit_list: (page) => new AuditApi(configuration).auditList(page),
    commands_list: (page) => new CommandsApi(configuration).commandsList(page),
    effects_list: (page) => new EffectsApi(configuration).effectsList(page),
    // Without this the list is a stream.
    events_list: (page) => new EventsApi(configuration).eventsList({ ...page, follow: false }),
    feeds_list: (page) => new FeedsApi(configuration).feedsList(page),
    forwarders_list: (page) => new ForwardersApi(configuration).forwardersList(page),
    holds_list: (page) => new HoldsApi(configuration).holdsList(page),
    nodes_list: (page) => new NodesApi(configuration).nodesList(page),
    policies_list: (page) => policiesApi.policiesList(page),
    policies_versions: (page) => policiesApi.policiesVersions({ ...page, ...parameters }),
    protected_list: (page) => new ProtectedApi(configuration).protectedList(page),
    responses_list: (page) => responsesApi.responsesList(page),
    secrets_list: (page) => new SecretsApi(configuration).secretsList(page),
    users_list: (page) => new UsersApi(configuration).usersList(page),
    webhooks_list: (page) => new WebhooksApi(configuration).webhooksList(page),
    webhooks_messages: (page) => new WebhooksApi(configuration).webhooksMessages({ ...page, ...parameters }),
};
const whole: Record<string, () => Promise<AxiosResponse<Page>>> = {
    actions_list: () => new ActionsApi(configuration).actionsList(),
    alerts_pipelines_list: () => alertsApi.alertsPipelinesList(),
};

function identities(items: object[]): string[] {
    return items.map((item) => {
        const { id, seq, name, version } = item as Record<string, unknown>;
        return String(id || seq || name || version);
    });
}

async function readLists() {
    const read: Record<string, unknown> = {};
    for (const [name, list] of Object.entries(whole)) {
        read[name] = { whole: identities(said(await list(), 200).items), pages: null };
    }
    for (const [name, list] of Object.entries(paged)) {
        const all = said(await list({ limit: 500 }), 200);
        const items: object[] = [];
        let pages = 0;
        let cursor: string | undefined;
        do {
            const page: Page = said(await list(cursor === undefined ? { limit: 2 } : { limit: 2, cursor }), 200);
            items.push(...page.items);
            pages += 1;
            cursor = page.next_cursor ?? undefined;
        } while (cursor !== undefined);
        read[name] = { whole: identities(all.items), pages, items: identities(items) };
    }
    return read;
}

async function problem() {
    try {
        await alertsApi.alertsFind({ id: '00000000-0000-0000-0000-000000000000' });
    } catch (error) {
        if (!isAxiosError<Problem>(error)) throw error;
        return ['Problem', error.response?.data.status];
    }
    return null;
}

async function report() {
    const told = {
        lines: [await sendLines(), await sendLines()],
        alerts: await sendAlerts(),
        imported: await importXml(),
        on: await makePolicies(),
        responses: await respond(),
        problem: await problem(),
        lists: await readLists(),
    };
    console.log(JSON.stringify(told));
}

report().catch((error: unknown) => {
    console.error(isAxiosError(error) ? `${error.message}: ${JSON.stringify(error.response?.data)}` : error);
    process.exitCode = 1;
});

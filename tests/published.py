"""Publish polls for the vote service, as workers do."""

from redis.asyncio import Redis

from voting.broker.poll_hash import CHANNEL, POLLS
from voting.polls.poll import Poll


async def publish_polls(client: Redis, polls: tuple[Poll, ...]) -> None:
    """Publish these polls, and no other."""
    async with client.pipeline(transaction=True) as transaction:
        transaction.delete(POLLS)
        for poll in polls:
            transaction.hset(POLLS, poll.slug, poll.to_json())
            transaction.publish(CHANNEL, f"poll {poll.slug}")
        await transaction.execute()
